use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::wire::avro::texts;
use crate::wire::event::{NotDecoded, decode_event};

/// Answers as a registry was seen to answer, and keeps what it was asked.
async fn recorded() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:pa%20ss@{}/apis/ccompat/v7/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = vec![0; 1 << 16];
                while !whole(&request) {
                    let n = stream.read(&mut buffer).await.unwrap();
                    if n == 0 {
                        return;
                    }
                    request.extend_from_slice(&buffer[..n]);
                }
                let request = String::from_utf8(request).unwrap();
                let (status, body) = answer(&request);
                seen.lock().unwrap().push(request);
                let length = body.len();
                let response = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(response.as_bytes()).await.unwrap();
            });
        }
    });
    (url, asked)
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}

fn answer(request: &str) -> (u16, String) {
    let schema = serde_json::json!({ "schema": texts::STEP_EVENT }).to_string();
    let path = request.split(' ').nth(1).unwrap().strip_prefix("/apis/ccompat/v7").unwrap();
    match path {
        "/schemas/ids/7" | "/schemas/guids/00000000-0000-0000-0000-000000000007" => (200, schema),
        "/schemas/ids/8" => (200, r#"{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}"#.into()),
        "/schemas/ids/9" => (500, r#"{"error_code":50001,"message":"Error in the backend data store"}"#.into()),
        "/schemas/ids/400" | "/schemas/ids/401" | "/schemas/ids/403" | "/schemas/ids/406" | "/schemas/ids/408"
        | "/schemas/ids/422" | "/schemas/ids/429" => (path.rsplit('/').next().unwrap().parse().unwrap(), "{}".into()),
        "/schemas/ids/10" => (200, "<html>not a registry</html>".into()),
        "/schemas/ids/11" => (200, r#"{"schema":7}"#.into()),
        "/schemas/ids/12" => (200, " ".repeat(MAX_RESPONSE + 1)),
        "/schemas/ids/13" => (200, serde_json::json!({"schema": texts::STEP_EVENT, "references": null}).to_string()),
        "/subjects/a%2Ev1%2Dvalue/versions" => (200, r#"{"id":42}"#.into()),
        "/subjects/b%2Dvalue/versions" => (409, r#"{"error_code":409,"message":"incompatible"}"#.into()),
        _ => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.into()),
    }
}

#[tokio::test]
async fn a_schema_is_learned_by_id_and_by_guid() {
    let (url, asked) = recorded().await;
    let registry = SchemaRegistry::new(&url).unwrap();
    let schemas = Schemas::new(true);
    for of in [SchemaRef::Id(SchemaId(7)), SchemaRef::Guid(Uuid::from_u128(7)), SchemaRef::Id(SchemaId(13))] {
        registry.learn(of, &schemas).await.unwrap();
    }
    let value = b"\0\0\0\0\x07";
    let decoded = decode_event(Some(b"s"), Some(value), &[], 1 << 20, &schemas);
    assert!(matches!(decoded, Err(NotDecoded::DeadLetter { code: "undecodable", .. })));
    assert!(asked.lock().unwrap()[0].contains("authorization: Basic dXNlcjpwYSBzcw=="));
}

#[tokio::test]
async fn what_is_not_there_is_refused_and_not_asked_for_again_at_once() {
    let (url, asked) = recorded().await;
    let registry = SchemaRegistry::new(&url).unwrap();
    let schemas = Schemas::new(true);
    let missing = [1, 8, 10, 11, 12, 400, 406, 422];
    for id in missing.into_iter().chain(missing) {
        let refused = registry.learn(SchemaRef::Id(SchemaId(id)), &schemas).await;
        assert!(matches!(refused, Err(Error::Refused { code: "unknown_schema", .. })), "{id}: {refused:?}");
    }
    assert_eq!(asked.lock().unwrap().len(), missing.len());
}

#[tokio::test]
async fn a_registry_that_fails_or_is_away_is_unavailable() {
    let (url, _) = recorded().await;
    let schemas = Schemas::new(true);
    let failing = SchemaRegistry::new(&url).unwrap();
    for id in [9, 401, 403, 408, 429] {
        assert!(failing.learn(SchemaRef::Id(SchemaId(id)), &schemas).await.unwrap_err().is_unavailable(), "{id}");
    }
    let away = SchemaRegistry::new("http://127.0.0.1:1").unwrap();
    assert!(away.learn(SchemaRef::Id(SchemaId(7)), &schemas).await.unwrap_err().is_unavailable());
    assert!(matches!(SchemaRegistry::new("127.0.0.1:1"), Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_schema_is_registered_under_its_topic() {
    let (url, asked) = recorded().await;
    let registry = SchemaRegistry::new(&url).unwrap();
    assert_eq!(registry.register("a.v1", texts::STEP_EVENT).await, Ok(SchemaId(42)));
    assert!(asked.lock().unwrap()[0].contains(r#"{"schema":"{"#));
    assert!(matches!(registry.register("b", texts::STEP_EVENT).await, Err(Error::Invalid { code: "schema_refused", .. })));
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_real_registry_gives_back_what_was_registered() {
    let registry = SchemaRegistry::new(&std::env::var("RESAGA_TEST_REGISTRY").expect("RESAGA_TEST_REGISTRY")).unwrap();
    let topic = format!("t-{}", Uuid::new_v4());
    for schema in [texts::STEP_EVENT, texts::REPLAY_REQUEST, texts::RESTORED_SAGA, texts::REPLAY_LOG_ENTRY] {
        let topic = format!("{topic}-{}", schema.len());
        let id = registry.register(&topic, schema).await.unwrap();
        assert_eq!(registry.register(&topic, schema).await, Ok(id));
        registry.learn(SchemaRef::Id(id), &Schemas::new(true)).await.unwrap();
    }
    let missing = registry.learn(SchemaRef::Id(SchemaId(2_000_000_000)), &Schemas::new(true)).await;
    assert!(matches!(missing, Err(Error::Refused { code: "unknown_schema", .. })), "{missing:?}");
}
