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
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let before = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request);
                    seen.iter().filter(|request| request.split(' ').nth(1) == Some(&path)).count() - 1
                };
                let (status, body) = answer(path.strip_prefix("/apis/ccompat/v7").unwrap(), before);
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

/// `before`: how often the same was asked before.
fn answer(path: &str, before: usize) -> (u16, String) {
    let schema = serde_json::json!({ "schema": texts::STEP_EVENT }).to_string();
    let of = |schema: &str, names: &[(&str, i32)]| {
        let names = names.iter().map(|(subject, version)| serde_json::json!({"name":"n","subject":subject,"version":version}));
        (200, serde_json::json!({"schema": schema, "references": names.collect::<Vec<_>>()}).to_string())
    };
    match path {
        "/schemas/ids/20" => of(&event_with(r#"{"name":"to","type":"acme.Address"}"#), &[("acme/address", 3)]),
        "/subjects/acme%2Faddress/versions/3?deleted=true" => of(ADDRESS, &[("zip", 1), ("acme/address", 3)]),
        "/subjects/zip/versions/1?deleted=true" => of(r#"{"type":"fixed","name":"Zip","size":2}"#, &[]),
        "/schemas/ids/21" => of(&event_with(r#"{"name":"to","type":"acme.Address"}"#), &[("nowhere", 1)]),
        "/schemas/ids/22" => of(&event_with(r#"{"name":"to","type":"acme.Address"}"#), &[]),
        "/schemas/ids/23" if before < 2 => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.into()),
        "/schemas/ids/23" => (200, schema),
        "/schemas/ids/7" | "/schemas/guids/00000000-0000-0000-0000-000000000007" => (200, schema),
        "/schemas/ids/8" => (200, r#"{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}"#.into()),
        "/schemas/ids/9" => (500, r#"{"error_code":50001,"message":"Error in the backend data store"}"#.into()),
        "/schemas/ids/400" | "/schemas/ids/401" | "/schemas/ids/403" | "/schemas/ids/406" | "/schemas/ids/408"
        | "/schemas/ids/422" | "/schemas/ids/429" => (path.rsplit('/').next().unwrap().parse().unwrap(), "{}".into()),
        "/schemas/ids/10" => (200, "<html>not a registry</html>".into()),
        "/schemas/ids/11" => (200, r#"{"schema":7}"#.into()),
        "/schemas/ids/12" => (200, " ".repeat(MAX_RESPONSE + 1)),
        "/schemas/ids/13" => (200, serde_json::json!({"schema": texts::STEP_EVENT, "references": null}).to_string()),
        "/subjects" => (200, "[]".into()),
        "/compatibility/subjects/a%2Ev1%2Dvalue/versions/latest" => (200, r#"{"is_compatible":true}"#.into()),
        "/compatibility/subjects/b%2Dvalue/versions/latest" => (200, r#"{"is_compatible":false}"#.into()),
        "/subjects/a%2Ev1%2Dvalue/versions" => (200, r#"{"id":42}"#.into()),
        "/subjects/b%2Dvalue/versions" => (409, r#"{"error_code":409,"message":"incompatible"}"#.into()),
        _ => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.into()),
    }
}

/// Two schemas of other subjects, the one of the other.
const ADDRESS: &str = r#"{"type":"record","name":"Address","namespace":"acme","fields":[{"name":"zip","type":"Zip"}]}"#;

/// A step event's needed fields and one more, first.
fn event_with(field: &str) -> String {
    let needed = ["event_id", "saga_id", "saga_name", "kind"].map(|name| format!(r#"{{"name":"{name}","type":"string"}}"#));
    format!(r#"{{"type":"record","name":"Mine","fields":[{field},{}]}}"#, needed.join(","))
}

/// A datum of such a schema, framed.
fn framed(id: u32, field: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), field, b"\x02e\x02s\x02n\x18SAGA_STARTED"].concat()
}

#[tokio::test]
async fn what_a_schema_names_of_other_subjects_is_fetched() {
    let (url, asked) = recorded().await;
    let (registry, schemas) = (SchemaRegistry::new(&url).unwrap(), Schemas::new(true));
    registry.learn(SchemaRef::Id(SchemaId(20)), &schemas).await.unwrap();
    let decoded = decode_event(Some(b"s"), Some(&framed(20, b"zz")), &[], 1 << 20, &schemas).unwrap();
    assert_eq!((decoded.event_id.as_str(), asked.lock().unwrap().len()), ("e", 3));
    // A reference that is not there may come, too.
    assert!(registry.learn(SchemaRef::Id(SchemaId(21)), &schemas).await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn a_schema_that_cannot_be_read_says_why_of_each_record() {
    let (url, asked) = recorded().await;
    let (registry, schemas) = (SchemaRegistry::new(&url).unwrap(), Schemas::new(true));
    for (id, says) in [(22, "id 22: type \"acme.Address\" is defined nowhere"), (8, "id 8: it is no Avro schema")] {
        registry.learn(SchemaRef::Id(SchemaId(id)), &schemas).await.unwrap();
        let decoded = decode_event(Some(b"s"), Some(&framed(id, b"zz")), &[], 1 << 20, &schemas);
        let message = format!("this build cannot read the schema with {says}");
        assert_eq!(decoded, Err(NotDecoded::DeadLetter { code: "unknown_schema", message }));
    }
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_schema_registered_a_moment_after_its_first_record_is_learned() {
    let (url, _) = recorded().await;
    let (registry, schemas) = (SchemaRegistry::new(&url).unwrap(), Schemas::new(true));
    let learn = || registry.learn(SchemaRef::Id(SchemaId(23)), &schemas);
    assert!(learn().await.unwrap_err().is_unavailable());
    let until_there = async {
        while learn().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::super::missing::GRACE, until_there).await.unwrap();
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
async fn what_is_not_there_is_waited_for_a_few_times_and_not_asked_for_again_at_once() {
    let (url, asked) = recorded().await;
    let registry = SchemaRegistry::new(&url).unwrap();
    let schemas = Schemas::new(true);
    let missing = [1, 10, 11, 12, 400, 406, 422];
    for (place, id) in missing.iter().chain(&missing).enumerate() {
        let error = registry.learn(SchemaRef::Id(SchemaId(*id)), &schemas).await.unwrap_err();
        match place % missing.len() < 4 {
            true => assert!(error.is_unavailable(), "{id}: {error:?}"),
            false => assert!(matches!(error, Error::Refused { code: "unknown_schema", .. }), "{id}: {error:?}"),
        }
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
    let would_take = async |topic: &str| registry.would_take(topic, texts::STEP_EVENT).await;
    assert_eq!([would_take("a.v1").await, would_take("b").await, would_take("new").await], [Ok(true), Ok(false), Ok(true)]);
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
        assert_eq!(registry.would_take(&topic, schema).await, Ok(true));
        assert_eq!(registry.would_take(&format!("{topic}-new"), schema).await, Ok(true));
        registry.learn(SchemaRef::Id(id), &Schemas::new(true)).await.unwrap();
    }
    // Waited for, then given up.
    let missing = loop {
        match registry.learn(SchemaRef::Id(SchemaId(2_000_000_000)), &Schemas::new(true)).await {
            Err(error) if error.is_unavailable() => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(matches!(missing, Err(Error::Refused { code: "unknown_schema", .. })), "{missing:?}");
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_real_registry_gives_what_java_registers_and_we_read_it() {
    let registry = SchemaRegistry::new(&std::env::var("RESAGA_TEST_REGISTRY").expect("RESAGA_TEST_REGISTRY")).unwrap();
    let schemas = Schemas::new(true);
    let run = Uuid::new_v4();
    let register = async |subject: &str, schema: &str, references: serde_json::Value| {
        let path = format!("/subjects/{}/versions", utf8_percent_encode(subject, NON_ALPHANUMERIC));
        let body = serde_json::json!({"schema": schema, "references": references}).to_string();
        let (status, body) = registry.send(Method::POST, &path, body.into()).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{subject}: {}", String::from_utf8_lossy(&body));
        parse::<Registered>(&body).unwrap().id
    };
    let address = format!("acme/address {run}");
    register(&address, &ADDRESS.replace(r#""Zip""#, r#"{"type":"fixed","name":"Zip","size":2}"#), serde_json::json!([])).await;
    let named = serde_json::json!([{"name": "acme.Address", "subject": address, "version": 1}]);
    let inner = r#"{"type":"error","name":"Cause","fields":[]}"#;
    let event = event_with(&format!(r#"{{"name":"to","type":"acme.Address"}},{{"name":"cause","type":{inner}}}"#));
    let id = register(&format!("event {run}"), &event, named).await;
    registry.learn(SchemaRef::Id(SchemaId(id)), &schemas).await.unwrap();
    let decoded = decode_event(Some(b"s"), Some(&framed(id, b"zz")), &[], 1 << 20, &schemas).unwrap();
    assert_eq!(decoded.saga_name, "n");
}
