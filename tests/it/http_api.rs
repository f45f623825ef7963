//! The routes of docs/INTERFACE.md through the router, with histories in memory and in a directory.

use serde_json::{Value, json};

use crate::http_world::{Tier, World};

/// Ids that a careless path would lose.
const ODD: [&str; 6] = ["..", "a/b", "100%", "Größe/7 🚚", "nul\u{0}\n", "%2F"];

/// The members of a state, in their order (docs/interface/events.md, State).
const STATE_MEMBERS: &str = "saga_id saga_name saga_version status current_step step_index running_steps completed_steps \
    skipped_steps compensated_steps failed_step error failed_steps compensation_failed_step compensation_error attempts results \
    context started_at updated_at ended_at tenant region labels lineage as_of entry snapshot folded source complete_through anomalies";

fn story() -> Vec<Value> {
    let mut events = vec![
        json!({"event_id": "1", "saga_id": "order-1", "saga_name": "order", "kind": "SAGA_STARTED", "context": {"amount": 99, "gateway": "main"}, "labels": {"team": "a:b"}}),
        json!({"event_id": "2", "saga_id": "order-1", "saga_name": "order", "kind": "STEP_STARTED", "step": "reserve", "step_index": 1}),
        json!({"event_id": "3", "saga_id": "order-1", "saga_name": "order", "kind": "STEP_COMPLETED", "step": "reserve", "result": {"id": "r-9"}, "context_patch": {"reserved": true}}),
        json!({"event_id": "4", "saga_id": "order-1", "saga_name": "order", "kind": "CHECKPOINT", "step": "paid"}),
        json!({"event_id": "5", "saga_id": "order-1", "saga_name": "order", "kind": "STEP_STARTED", "step": "charge", "step_index": 2}),
        json!({"event_id": "6", "saga_id": "order-1", "saga_name": "order", "kind": "STEP_FAILED", "step": "charge", "error": {"code": "GATEWAY_DOWN"}}),
        json!({"event_id": "7", "saga_id": "order-1", "saga_name": "order", "kind": "SAGA_FAILED", "step": "charge"}),
    ];
    events.extend(ODD.iter().enumerate().map(|(n, id)| {
        json!({"event_id": format!("odd-{n}"), "saga_id": id, "saga_name": "odd", "kind": "SAGA_STARTED", "context": {"id": id}})
    }));
    events
}

/// The same on each store.
async fn worlds() -> [World; 2] {
    [World::new(Tier::Hot, &story()).await, World::new(Tier::Cold, &story()).await]
}

fn encoded(id: &str) -> String {
    id.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test]
async fn a_state_is_answered_now_at_a_time_and_at_an_entry() {
    for world in worlds().await {
        let newest = world.get("/v1/sagas/order-1").await;
        assert_eq!(newest.status, 200, "{}", newest.text);
        assert_eq!(newest.headers["content-type"], "application/json");
        let state = newest.json();
        assert_eq!(state["status"], "failed");
        assert_eq!(state["failed_step"], "charge");
        assert_eq!(state["error"], json!({"code": "GATEWAY_DOWN", "type": null, "message": null, "details": null}));
        assert_eq!(state["context"].to_string(), r#"{"amount":99,"gateway":"main","reserved":true}"#);
        assert_eq!(state["entry"]["position"], json!({"topic": "saga.events.v1", "partition": 0, "offset": 6}));
        assert_eq!(state["as_of"], state["updated_at"]);
        let members: Vec<_> = state.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(members.join(" "), STATE_MEMBERS);

        let then = world.get("/v1/sagas/order-1?at=2026-01-10T10:00:01.5Z").await.json();
        assert_eq!(then["current_step"], "reserve");
        assert_eq!(then["as_of"], "2026-01-10T10:00:01.500000Z");
        let fifth = world.get("/v1/sagas/order-1?sequence=5").await.json();
        assert_eq!((&fifth["current_step"], &fifth["step_index"]), (&json!("charge"), &json!(2)));
    }
}

#[tokio::test]
async fn what_is_not_there_has_a_code() {
    for world in worlds().await {
        for (path, status, code) in [
            ("/v1/sagas/nobody", 404, "saga_not_found"),
            ("/v1/sagas/order-1?at=2020-01-01T00:00:00Z", 404, "before_first_event"),
            ("/v1/sagas/order-1?sequence=8", 404, "sequence_not_found"),
            ("/v1/sagas/order-1?sequence=0", 404, "sequence_not_found"),
            ("/v1/sagas/order-1/context?pointer=/no", 404, "pointer_not_found"),
            ("/v1/sagas/nobody/history", 404, "saga_not_found"),
            ("/v1/sagas/nobody/replays", 404, "saga_not_found"),
            ("/v1/replays/nothing", 404, "replay_not_found"),
            ("/v1/nothing", 404, "route_not_found"),
        ] {
            let answer = world.get(path).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {}", answer.text);
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
        let long = world.get(&format!("/v1/sagas/{}", "x".repeat(257))).await;
        assert_eq!((long.status, long.code().as_str()), (404, "saga_not_found"));
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_refused() {
    let world = World::new(Tier::Hot, &story()).await;
    for (path, code) in [
        ("/v1/sagas/order-1?at=2026-01-10T10:00:00", "invalid_time"),
        ("/v1/sagas/order-1?at=", "invalid_time"),
        ("/v1/sagas/order-1?at=2026-01-10T10:00:00Z&sequence=1", "request_invalid"),
        ("/v1/sagas/order-1?sequence=one", "request_invalid"),
        ("/v1/sagas/%FF", "request_invalid"),
        ("/v1/sagas/order-1/history?limit=0", "request_invalid"),
        ("/v1/sagas/order-1/history?limit=1001", "request_invalid"),
        ("/v1/sagas/order-1/history?after=nonsense", "request_invalid"),
        ("/v1/sagas/order-1/context?pointer=amount", "request_invalid"),
        ("/v1/sagas/order-1/diff?from=1", "request_invalid"),
        ("/v1/sagas/order-1/diff?from=1&to=2&other=x", "request_invalid"),
        ("/v1/sagas?status=broken", "request_invalid"),
        ("/v1/sagas?limit=1e3", "request_invalid"),
        ("/v1/sagas?since=today", "invalid_time"),
        ("/v1/replays?status=broken", "request_invalid"),
    ] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn any_id_is_found_by_its_encoded_path() {
    for world in worlds().await {
        for id in ODD {
            for path in [encoded(id), encoded(id).to_lowercase()] {
                let answer = world.get(&format!("/v1/sagas/{path}")).await;
                assert_eq!((answer.status, &answer.json()["context"]["id"]), (200, &json!(id)), "{id:?}");
            }
        }
        // As a client sends it that does not encode what it need not.
        assert_eq!(world.get("/v1/sagas/..").await.json()["saga_id"], "..");
        assert_eq!(world.get("/v1/sagas/../context?pointer=/id").await.text, r#"{"value":".."}"#);
    }
}

#[tokio::test]
async fn pages_of_a_history_join_without_a_hole() {
    for world in worlds().await {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("/v1/sagas/order-1/history?limit=3{after}")).await.json();
            seen.extend(page["entries"].as_array().expect("entries").clone());
            match page["next"].as_str() {
                Some(cursor) => after = format!("&after={cursor}"),
                None => break,
            }
        }
        assert_eq!(
            seen.iter().map(|entry| entry["sequence"].as_u64().expect("number")).collect::<Vec<_>>(),
            (1..=7).collect::<Vec<_>>()
        );
        assert_eq!(seen[2]["changed"], json!(["/reserved"]));
        assert_eq!(seen[2]["occurred_at"], Value::Null);
        assert_eq!((&seen[5]["error"]["code"], &seen[6]["status"]), (&json!("GATEWAY_DOWN"), &json!("failed")));
        let window = world.get("/v1/sagas/order-1/history?since=2026-01-10T10:00:01Z&until=2026-01-10T10:00:03Z").await.json();
        assert_eq!(window["entries"].as_array().map(Vec::len), Some(2));
    }
}

#[tokio::test]
async fn a_difference_tells_context_steps_and_status() {
    for world in worlds().await {
        let diff = world.get("/v1/sagas/order-1/diff?from=1&to=2026-01-10T10:00:06Z").await.json();
        assert_eq!(diff["patch"], json!([{"op": "add", "path": "/reserved", "value": true}]));
        assert_eq!(diff["steps"]["completed"], json!({"added": ["reserve"], "removed": []}));
        assert_eq!(diff["status"], json!({"from": "running", "to": "failed"}));
        assert_eq!(diff["to"]["as_of"], "2026-01-10T10:00:06.000000Z");
        let other = world.get(&format!("/v1/sagas/order-1/diff?other={}", encoded(".."))).await.json();
        assert_eq!(other["to"]["saga_id"], "..");
    }
}

#[tokio::test]
async fn checkpoints_and_lineage_are_answered() {
    for world in worlds().await {
        let checkpoints = world.get("/v1/sagas/order-1/checkpoints").await.json();
        let found: Vec<_> = checkpoints["checkpoints"]
            .as_array()
            .expect("list")
            .iter()
            .map(|c| (c["sequence"].clone(), c["name"].clone()))
            .collect();
        assert_eq!(found, [(json!(7), Value::Null), (json!(5), Value::Null), (json!(4), json!("paid")), (json!(2), Value::Null)]);
        let tree = world.get("/v1/sagas/order-1/lineage").await.json();
        assert_eq!(
            tree,
            json!({"saga_id": "order-1", "status": "failed", "replay_id": null, "depth": 0, "resume_step": null, "mode": null,
                "replay_status": null, "outcome": null, "executed_as": null, "undone_by": null, "batch_id": null, "schedule_id": null,
                "requested_by": null, "reason": null, "children": []})
        );
        assert_eq!(world.get("/v1/sagas/order-1/replays").await.text, r#"{"replays":[],"next":null}"#);
    }
}

#[tokio::test]
async fn a_search_finds_failures_and_labels() {
    for world in worlds().await {
        for query in [
            "status=failed&failed_step=charge&error_code=GATEWAY_DOWN&since=2026-01-10T10:00:00Z&until=2026-01-10T10:20:00Z",
            "label=team:a:b&since=2026-01-10T10:00:00Z&until=2026-01-10T10:20:00Z",
            "saga_id=order-1",
        ] {
            let answer = world.get(&format!("/v1/sagas?{query}")).await;
            let found = answer.json();
            assert_eq!(found["sagas"].as_array().map(Vec::len), Some(1), "{query}: {}", answer.text);
            assert_eq!((&found["sagas"][0]["saga_id"], &found["sagas"][0]["depth"]), (&json!("order-1"), &json!(0)));
            assert!(found["complete_through"].is_string());
        }
        let none = world.get("/v1/sagas?failed_step=ship&since=2026-01-10T10:00:00Z&until=2026-01-10T10:20:00Z").await.json();
        assert_eq!(none["sagas"], json!([]));
    }
}

#[tokio::test]
async fn replays_are_taken_refused_and_called_off() {
    let world = World::new(Tier::Hot, &story()).await;
    let taken = world.send("POST", "/v1/replays", r#"{"saga_id":"order-1"}"#, Some("key-1")).await;
    assert_eq!(
        (taken.status, taken.text.as_str()),
        (202, r#"{"request_id":"key-1","replay_id":"r","new_saga_id":"new-order-1"}"#)
    );
    for (path, body, status, code) in [
        ("/v1/replays", "{}", 400, "request_invalid"),
        ("/v1/replays", r#"{"saga_id":"running"}"#, 409, "saga_running"),
        ("/v1/replays", r#"{"saga_id":"behind"}"#, 503, "behind"),
        ("/v1/replays/late/cancel", r#"{"requested_by":"sam","reason":"x"}"#, 409, "request_invalid"),
        ("/v1/replays/none/cancel", r#"{"requested_by":"sam","reason":"x"}"#, 404, "replay_not_found"),
        ("/v1/replays/r/cancel", r#"{"requested_by":"sam"}"#, 400, "request_invalid"),
        ("/v1/replays/late/undo", r#"{"requested_by":"sam","reason":"x"}"#, 409, "request_invalid"),
        ("/v1/replays/running/undo", r#"{"requested_by":"sam","reason":"x"}"#, 409, "saga_running"),
        ("/v1/replays/none/undo", r#"{"requested_by":"sam","reason":"x"}"#, 404, "replay_not_found"),
        ("/v1/replays/r/undo", "{}", 400, "request_invalid"),
        ("/v1/batches", "{}", 400, "request_invalid"),
        ("/v1/batches/b/pause", "{}", 409, "request_invalid"),
        ("/v1/schedules", "{}", 400, "request_invalid"),
        (
            "/v1/schedules",
            r#"{"schedule":{"policy":{"on":{},"stop":1}},"requested_by":"sam","reason":"x"}"#,
            400,
            "request_invalid",
        ),
        ("/v1/schedules/preview", "{}", 400, "request_invalid"),
        ("/v1/schedules/s/enable", "{}", 404, "schedule_not_found"),
        ("/v1/sagas/order-1", "{}", 405, "method_not_allowed"),
    ] {
        let answer = world.post(path, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {body}: {}", answer.text);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
    let asked = world.post("/v1/replays/r/cancel", r#"{"requested_by":"sam","reason":"x"}"#).await;
    assert_eq!((asked.status, asked.text.as_str()), (202, r#"{"request_id":"sam/x","replay_id":"c"}"#));
    let large = world.post("/v1/replays", &" ".repeat(5_000)).await;
    assert_eq!((large.status, large.code().as_str()), (422, "too_large"));
}

#[tokio::test]
async fn what_nobody_reads_is_refused_on_every_route() {
    let world = World::new(Tier::Hot, &story()).await;
    for (method, path, nearest) in [
        ("GET", "/v1/sagas?stauts=failed", "status"),
        ("GET", "/v1/sagas/order-1?At=2026-01-10T10:00:03Z", "at"),
        ("GET", "/v1/sagas/order-1/context?poniter=/a", "pointer"),
        ("GET", "/v1/sagas/order-1/history?sinze=3", "since"),
        ("GET", "/v1/sagas/order-1/diff?fromm=1&to=2", "from"),
        ("GET", "/v1/sagas/order-1/checkpoints?Limit=1", "limit"),
        ("GET", "/v1/sagas/order-1/lineage?x=1", "none here"),
        ("GET", "/v1/sagas/order-1/replays?status=failed", "did you mean"),
        ("GET", "/v1/replays?saga=order-1", "saga_id"),
        ("GET", "/v1/replays/r?x=1", "none here"),
        ("POST", "/v1/replays?dry_run=true", "none here"),
        ("POST", "/v1/replays/r/cancel?reason=x", "none here"),
        ("GET", "/livez?x", "none here"),
        ("GET", "/readyz?x", "none here"),
        ("GET", "/metrics?x", "none here"),
        ("GET", "/openapi.json?x", "none here"),
    ] {
        let answer = world.send(method, path, r#"{"saga_id":"order-1"}"#, None).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "request_invalid"), "{path}: {}", answer.text);
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(nearest)), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_page_of_another_site_and_a_host_that_is_not_ours_are_turned_away() {
    let world = World::new(Tier::Hot, &story()).await;
    let body = r#"{"saga_id":"order-1"}"#;
    for (method, path, header, status, code) in [
        ("POST", "/v1/replays", ("origin", "https://evil.example"), 403, "cross_origin"),
        ("POST", "/v1/replays", ("sec-fetch-site", "cross-site"), 403, "cross_origin"),
        ("POST", "/v1/replays/r/cancel", ("origin", "null"), 403, "cross_origin"),
        ("DELETE", "/v1/schedules/s", ("origin", "https://evil.example"), 403, "cross_origin"),
        ("POST", "/v1/no/such/route", ("origin", "https://evil.example"), 403, "cross_origin"),
        ("POST", "/v1/replays", ("host", "evil.example"), 421, "host_not_allowed"),
        ("GET", "/v1/sagas/order-1", ("host", "evil.example:8080"), 421, "host_not_allowed"),
        ("GET", "/metrics", ("host", "evil.example"), 421, "host_not_allowed"),
        ("GET", "/v1/sagas/order-1", ("host", "resaga.example.org"), 200, ""),
        ("POST", "/v1/replays", ("sec-fetch-site", "same-origin"), 202, ""),
    ] {
        let answer = world.send_with(method, path, body, &[header]).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {header:?}: {}", answer.text);
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "no CORS");
    }
}

#[tokio::test]
async fn those_who_run_it_are_told() {
    let world = World::new(Tier::Hot, &story()).await;
    assert_eq!(world.get("/livez").await.status, 200);
    assert_eq!(world.get("/readyz").await.status, 503);
    world.readiness.set("broker", true);
    assert_eq!(world.get("/readyz").await.status, 200);
    world.get("/v1/sagas/order-1").await;
    let metrics = world.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().expect("text").starts_with("text/plain; version=0.0.4"));
    assert!(
        metrics.text.contains(r#"resaga_http_requests_total{method="GET",route="/v1/sagas/{id}",status="200"} 1"#),
        "{}",
        metrics.text
    );
    assert!(metrics.text.contains(r#"resaga_state_queries_total{result="found",source="hot"} 1"#));
    assert_eq!(world.get("/openapi.json").await.json()["openapi"], "3.1.0");
    for method in ["SCAN1", "SCAN2"] {
        assert_eq!(world.send(method, "/v1/sagas/order-1", "", None).await.status, 405);
    }
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains(r#"resaga_http_requests_total{method="other",route="/v1/sagas/{id}",status="405"} 2"#), "{metrics}");
    assert!(!metrics.contains("SCAN"), "a method is no label: each would be a series");
}
