"""Schedules and policies: each due time and each failure asks for one replay, whatever dies; disabled, nothing goes."""

import uuid

import times
from checks import log_records
from jsontext import dumps, loads
from sagas import Story, failed
from servers.process import wait_for

SECOND = 1_000_000
WHO = {"requested_by": "ops@example.org", "reason": "INC-4412"}
FROM = {"from": {"step": "charge_payment"}}


def uuid5(space, name):
    return str(uuid.uuid5(uuid.UUID(space), name))


def create(process, schedule, **members):
    answer = process.post("/v1/schedules", dumps({"schedule": schedule, **WHO, **members}))
    assert answer.status == 202, answer.body
    return answer.body["schedule_id"]


def look(process, schedule_id):
    answer = process.get(f"/v1/schedules/{schedule_id}")
    assert answer.status == 200, answer.body
    return answer.body


def ask(process, schedule_id, what):
    answer = process.post(f"/v1/schedules/{schedule_id}/{what}", dumps(WHO))
    assert answer.status == 202, answer.body
    return answer.body


def of_schedule(world, schedule_id, command="REPLAY"):
    """The log's records of what it asked for, by original saga."""
    records = [r for r in log_records(world).values() if r["schedule_id"] == schedule_id and r["command"] == command]
    assert len({r["original_saga_id"] for r in records}) == len(records), records
    return {r["original_saga_id"]: r for r in records}


def until_replayed(world, schedule_id, ids, status="published", within=60):
    def there():
        found = {saga: record["status"] for saga, record in of_schedule(world, schedule_id).items()}
        assert found == dict.fromkeys(ids, status), found
        return of_schedule(world, schedule_id)
    return wait_for(f"{len(ids)} {status}", there, within, every=0.3)


def restored(world):
    """By original saga; each once."""
    values = [loads(message.value().decode()) for message in world.log.read(world.restored)]
    assert len({value["replay_id"] for value in values}) == len(values)
    return {value["original_saga_id"]: value for value in values}


def fail(world, *ids, **context):
    for saga_id in ids:
        for _, event in failed(saga_id, **context).stream():
            world.log.send(world.events, saga_id, event)
    world.log.flush()


def end(world, saga_id, kind):
    world.log.send(world.events, saga_id, {"event_id": f"{saga_id}/end", "saga_id": saga_id, "saga_name": "order-processing", "kind": kind})
    world.log.flush()


def test_one_replay_at_its_time_by_each_way_to_ask(world):
    process = world.start()
    fail(world, "a", "b", "c")
    world.await_caught_up()
    due = times.now() + 3 * SECOND
    at = {"at": times.text(due), "name": "after the deploy", "override": {"merge": {"token": "new"}}, **FROM}
    by_http = create(process, {**at, "saga_id": "a"})
    by_topic = str(uuid.uuid4())
    request = {"request_id": by_topic, "command": "SCHEDULE", "schedule": {**at, "saga_id": "b"}, **WHO}
    for _ in range(2):
        world.log.send(world.requests, by_topic, request)
    world.log.flush()
    batch = create(process, {"at": times.text(due), "batch": {"saga_ids": ["c", "no such"], **FROM}})
    shown = look(process, by_http)
    assert (shown["at"], shown["next_due"], shown["enabled"], int(shown["runs"]), shown["name"]) == (
        times.text(due), times.text(due), True, 0, "after the deploy")
    assert not of_schedule(world, by_http)
    until_replayed(world, by_http, ["a"])
    until_replayed(world, by_topic, ["b"])
    found = wait_for("the batch", lambda: (lambda r: r if len(r) == 2 else None)(of_schedule(world, batch)), 30)
    assert {saga: record["status"] for saga, record in found.items()} == {"c": "published", "no such": "refused"}
    got = restored(world)
    assert {saga: value["restored_at"] for saga, value in got.items()} == dict.fromkeys("abc", times.text(due))
    assert got["a"]["request_id"] == uuid5(by_http, times.text(due)) and got["a"]["context"]["token"] == "new"
    assert found["c"]["batch_id"] == got["c"]["batch_id"] == uuid5(batch, times.text(due))
    over = look(process, by_http)
    assert (over["enabled"], int(over["runs"]), over["next_due"], over["last_due"], over["status"]) == (False, 1, None, times.text(due), "published")
    assert {s["schedule_id"] for s in process.get("/v1/schedules").body["schedules"]} == {by_http, by_topic, batch}
    refused = process.post("/v1/schedules", dumps({"schedule": {**at, "saga_id": "a"}, "request_id": by_topic, **WHO}))
    assert (refused.status, refused.code) == (409, "id_taken")


def test_a_cron_runs_once_for_what_was_missed_and_can_be_cancelled(world):
    process = world.start()
    fail(world, "a")
    world.await_caught_up()
    minutely = create(process, {"cron": "* * * * *", "batch": {"selector": {"status": "failed", "last": "9000d", "replay": "none"}, **FROM}})
    never = create(process, {"cron": "0 0 1 1 *", "zone": "Europe/Berlin", "saga_id": "a", **FROM})
    first = look(process, minutely)["next_due"]
    assert look(process, never)["next_due"].endswith("-12-31T23:00:00.000000Z")
    process.kill()
    wait_for("its minute has passed", lambda: times.now() > times.parse(first) + SECOND, 65)
    process = world.start()
    record = until_replayed(world, minutely, ["a"])["a"]
    shown = look(process, minutely)
    assert shown["last_due"] == times.text(times.parse(record["accepted_at"])) >= first
    assert record["request_id"] == uuid5(minutely, record["accepted_at"]) == record["batch_id"]
    for schedule_id in (minutely, never):
        answer = process.request("DELETE", f"/v1/schedules/{schedule_id}", dumps(WHO))
        assert (answer.status, answer.body["status"], answer.body["enabled"]) == (202, "cancelled", False), answer.body
    again = process.request("DELETE", f"/v1/schedules/{never}", dumps(WHO))
    assert (again.status, again.code) == (409, "request_invalid")
    assert process.get("/v1/schedules/no-such").code == "schedule_not_found"


def test_a_policy_repairs_each_later_failure_once_through_kills(world):
    process, other = world.start(), world.start()
    fail(world, "before")
    world.await_caught_up()
    policy = {"on": {"saga_name": "order-processing", "failed_step": "charge_payment"}, "delay": "1s"}
    schedule_id = create(process, {"name": "token outage", "policy": policy, "override": {"merge": {"token": "new"}}})
    wait_for("known", lambda: look(process, schedule_id)["enabled"], 20)
    ids = [f"order-{number}" for number in range(60)]
    for number, saga_id in enumerate(ids):
        fail(world, saga_id)
        if number in (20, 45):
            process.kill()
            process = world.start()
    other.kill()
    until_replayed(world, schedule_id, ids, within=90)
    got = restored(world)
    assert set(got) == set(ids) and all(value["context"]["token"] == "new" for value in got.values())
    for saga_id, value in got.items():
        state = process.get(f"/v1/sagas/{saga_id}").body
        assert value["request_id"] == uuid5(schedule_id, f"{saga_id}/{state['entry']['sequence']}")
        later = times.parse(value["restored_at"]) - times.parse(state["entry"]["recorded_time"])
        assert later == SECOND and value["requested_by"] == WHO["requested_by"]
    # A restored saga that fails again has its turn after twice the delay; what completes has none.
    end(world, got["order-0"]["saga_id"], "SAGA_COMPLETED")
    again = got["order-1"]["saga_id"]
    world.log.send(world.events, again, {"event_id": "x", "saga_id": again, "saga_name": "order-processing", "kind": "STEP_FAILED", "step": "charge_payment"})
    end(world, again, "SAGA_FAILED")
    record = wait_for("the second try", lambda: of_schedule(world, schedule_id).get(again), 60)
    second = wait_for("restored", lambda: restored(world).get(again), 30)
    newest = process.get(f"/v1/sagas/{again}").body["entry"]["recorded_time"]
    assert times.parse(second["restored_at"]) - times.parse(newest) == 2 * SECOND and record["original_saga_id"] == again
    counts = look(process, schedule_id)
    assert int(counts["runs"]) == len(ids) + 1 == sum(int(count) for count in counts["counts"].values())


def test_a_stopped_policy_cancels_what_waits_and_goes_on_once_it_is_enabled(world):
    process = world.start()
    schedule_id = create(process, {"policy": {"on": {}, "delay": "1h"}})
    fail(world, "a")
    until_replayed(world, schedule_id, ["a"], "accepted")
    ask(process, schedule_id, "disable")
    record = until_replayed(world, schedule_id, ["a"], "cancelled", within=20)["a"]
    assert record["code"] == "policy_stopped"
    shown = look(process, schedule_id)
    assert (shown["enabled"], shown["stopped_because"], int(shown["counts"]["cancelled"])) == (False, "disabled", 1)
    fail(world, "b")
    world.await_caught_up()
    ask(process, schedule_id, "enable")
    fail(world, "c")
    wait_for("what fails after it", lambda: "c" in of_schedule(world, schedule_id), 30)
    assert set(of_schedule(world, schedule_id)) == {"a", "c"}, "what failed while it was disabled is left alone"
    twice = process.post(f"/v1/schedules/{schedule_id}/enable", dumps(WHO))
    assert (twice.status, twice.code) == (409, "request_invalid")


def test_the_breaker_of_a_policy_stops_it_by_how_its_replays_ended(world):
    process = world.start()
    policy = {"on": {"saga_name": "order-processing"}, "delay": "0s", "stop_ratio": 0.5, "stop_after": 4, "max_replays": 1}
    schedule_id = create(process, {"policy": policy, **FROM})
    ids = [f"order-{number}" for number in range(4)]
    fail(world, *ids)
    until_replayed(world, schedule_id, ids)
    got = restored(world)
    for number, saga_id in enumerate(ids):
        end(world, got[saga_id]["saga_id"], "SAGA_COMPLETED" if number == 0 else "SAGA_FAILED")
    shown = wait_for("it stops", lambda: (lambda s: s if not s["enabled"] else None)(look(process, schedule_id)), 40)
    assert shown["stopped_because"] == "stop_ratio"
    fail(world, "later")
    world.await_caught_up()
    process.kill()
    process = world.start()
    assert look(process, schedule_id)["stopped_because"] == "stop_ratio"
    ask(process, schedule_id, "enable")
    fail(world, "last")
    wait_for("it goes on", lambda: "last" in of_schedule(world, schedule_id), 30)
    assert set(of_schedule(world, schedule_id)) == {*ids, "last"}


def test_a_policy_on_stuck_sagas_leaves_alone_what_moves(world):
    process = world.start(**{"stuck.after": "3s"})
    still, moving = Story("still"), "moving"
    still.start().event("STEP_STARTED", "charge_payment")
    world.send(still.stream())
    schedule_id = create(process, {"policy": {"on": {"stuck": True}, "delay": "0s"}})
    for number in range(8):
        world.log.send(world.events, moving, {"event_id": f"m{number}", "saga_id": moving, "saga_name": "order-processing",
                                              "kind": "SAGA_STARTED" if number == 0 else "STEP_STARTED", "step": None if number == 0 else f"s{number}"})
        world.log.flush()
        wait_for("a second", (lambda until: lambda: times.now() > until)(times.now() + SECOND), 5)
    record = until_replayed(world, schedule_id, ["still"])["still"]
    assert restored(world)["still"]["resume_step"] == "charge_payment" and record["resume_step"] == "charge_payment"


def test_a_preview_says_what_a_policy_would_have_done_and_writes_nothing(world):
    process = world.start()
    since = times.text(times.now() - 60 * SECOND)
    fail(world, "a", "b", "c")
    world.await_caught_up()
    process.post("/v1/replays", dumps({"saga_id": "b", **FROM, **WHO}))
    schedule = {"policy": {"on": {"failed_step": "charge_payment"}, "delay": "5m"}}
    body = {"schedule": schedule, "since": since, "until": times.text(times.now() + 60 * SECOND)}

    def preview(**query):
        answer = process.post("/v1/schedules/preview" + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""), dumps(body))
        assert answer.status == 200, answer.body
        return answer.body
    wait_for("b is replayed", lambda: process.get("/v1/replays", saga_id="b").body["replays"], 30)
    found = preview()
    assert {row["saga_id"]: (row["verdict"], row["code"]) for row in found["would"]} == {
        "a": ("replay", None), "b": ("refuse", "already_replayed"), "c": ("replay", None)}
    for row in found["would"]:
        state = process.get(f"/v1/sagas/{row['saga_id']}").body["entry"]
        assert row["sequence"] == state["sequence"] and times.parse(row["due"]) - times.parse(state["recorded_time"]) == 300 * SECOND
    assert (int(found["total"]), found["next"]) == (3, None)
    pages = [preview(limit=2), preview(limit=2, after=2)]
    assert pages[0]["would"] + pages[1]["would"] == found["would"] and pages[0]["next"] == "2"
    body = {"schedule": {"cron": "0 * * * *", "batch": {"selector": {"status": "failed", "last": "9000d"}, **FROM}},
            "since": times.text(times.now()), "until": times.text(times.now() + 7_200 * SECOND)}
    assert int(preview()["total"]) == 6 and not process.get("/v1/schedules").body["schedules"]
    body = {**body, "schedule": {"policy": {"on": {}, "delay": 5}}}
    refused = process.post("/v1/schedules/preview", dumps(body))
    assert (refused.status, refused.code) == (400, "request_invalid") and "policy.delay" in refused.body["detail"]
