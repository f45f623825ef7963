"""Replay end to end: the restored saga, refusals, waiting and cancelling, the log and its outcome, lineage."""

import itertools
import random
import uuid

import pytest

import generator
import times
from checks import await_log, log_records, newest_states_equal_model, replayed_exactly_once
from jsontext import Number, dumps, loads
from model import differences, same_order
from plan import Refused, new_saga_id, replay_id, restored
from sagas import STEPS, Story, completed, failed, replay
from servers.process import wait_for

VECTORS = [
    ("0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10", "order-1", "900f44fb-faac-5e2b-928c-b4ea3c60c892", "e9de0afa-4568-5eca-b7bf-49a4260d05a1"),
    ("INC-4412/1", "order-1", "efdf55a4-80ba-5d7c-815a-e3a645f31898", "3cef9842-dc5a-5f6c-ad28-64b3c0783460"),
    ("0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10", "Größe/7 🚚", "1b9c17d9-35cf-5589-b2ad-8ed9bfceea86", "c2b8aae3-0cf0-58f5-9127-1804579d17ad"),
]


def taken_up_at(world):
    """{(request id, saga id): timestamp of its first record in microseconds}."""
    times_of = {}
    for message in world.log.read(world.requests):
        request = loads(message.value().decode())
        times_of.setdefault((request.get("request_id"), request.get("saga_id")), message.timestamp()[1] * 1_000)
    return times_of


def published(world):
    """{replay id: restored saga}."""
    return {value["replay_id"]: value for value in (loads(m.value().decode()) for m in world.log.read(world.restored))}


def send(world, requests):
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()


def ids(requests):
    return [replay_id(r["request_id"], r["saga_id"]) for r in requests]


def test_ids_are_derived_as_published(world):
    for request_id, saga_id, expected_replay, expected_saga in VECTORS:
        assert (replay_id(request_id, saga_id), new_saga_id(expected_replay, saga_id)) == (expected_replay, expected_saga)
    world.start()
    for saga_id in ("order-1", "Größe/7 🚚"):
        world.send(failed(saga_id).stream())
    send(world, [replay(saga_id, request_id=request_id, allow_repeat=True) for request_id, saga_id, _, _ in VECTORS])
    await_log(world, [r for _, _, r, _ in VECTORS])
    got = published(world)
    assert {r: value["saga_id"] for r, value in got.items()} == {r: s for _, _, r, s in VECTORS}
    message = next(m for m in world.log.read(world.restored) if m.key().decode() == VECTORS[0][3])
    headers = {name: (value or b"").decode() for name, value in message.headers()}
    assert headers["resaga-replay-id"] == VECTORS[0][2]
    assert headers["resaga-original-id"] == headers["resaga-root-id"] == "order-1"
    assert (headers["resaga-depth"], headers["resaga-mode"]) == ("1", "resume")
    assert "resaga-force-failure" not in headers and "traceparent" in headers and headers["ce_specversion"] == "1.0"


def random_request(rng, saga):
    entries = saga.entries
    step = rng.choice(generator.STEPS)
    point = rng.choice([
        {"step": step}, {"step": step}, {"step": step}, {"after_step": step}, {"checkpoint": step}, {"start": True}, {"latest": True},
        {"at": times.text(rng.choice(entries).effective + rng.choice([0, -1, 500]))}, {"sequence": Number(rng.randrange(0, len(entries) + 2))},
        {"step": step, "attempt": Number(rng.randrange(1, 4))} if any(
            e.record.event["kind"] == "STEP_STARTED" and e.record.event["step"] == step for e in entries) else {"step": step}])
    request = replay(entries[0].record.event["saga_id"], point, allow_repeat=True, allow_running=rng.random() < 0.9)
    if rng.random() < 0.7:
        request["allow_completed"] = True
    if rng.random() < 0.2:
        request["mode"] = "compensate"
    if rng.random() < 0.6:
        request["if_compensated"] = rng.choice(["refuse", "keep", "rerun"])
    if rng.random() < 0.2:
        request["force_failure"] = rng.choice(generator.STEPS)
    if rng.random() < 0.2:
        request["saga_version"] = "9"
    if rng.random() < 0.3:
        request["labels"] = {"team": "replay", "incident": "4412"}
    if rng.random() < 0.6:
        name = rng.choice([w for w in generator.WORDS if w])
        path = "/" + name.replace("~", "~0").replace("/", "~1")
        request["override"] = rng.choice([
            {"merge": generator.members(rng)}, {"shallow": generator.members(rng)}, {"replace": generator.members(rng)},
            {"patch": [{"op": "add", "path": path, "value": Number("1.50")}, {"op": "test", "path": path, "value": Number("1.50")}]},
            {"patch": [{"op": "remove", "path": path}]}, {"patch": [{"op": "replace", "path": path, "value": None}]},
            {"patch": [{"op": "test", "path": path, "value": "no such"}]}])
    return request


def test_restored_sagas_and_refusals_equal_an_independent_plan(world, full):
    process = world.start()
    world.send(generator.interleaved(51, generator.sagas(51, 80)))
    world.await_caught_up()
    model = world.judge()
    rng = random.Random(52)
    requests = [random_request(rng, model.sagas[rng.choice(sorted(model.sagas))]) for _ in range(2_000 if full else 500)]
    send(world, requests)
    known = await_log(world, ids(requests))
    got, taken = published(world), taken_up_at(world)
    wrong, refusals = [], {}
    for request in requests:
        key = replay_id(request["request_id"], request["saga_id"])
        try:
            expected = restored(model.sagas[request["saga_id"]], request, taken[(request["request_id"], request["saga_id"])])
        except Refused as code:
            refusals[str(code)] = refusals.get(str(code), 0) + 1
            if (known[key]["status"], known[key]["code"]) != ("refused", str(code)) or key in got:
                wrong.append(f"{dumps(request)}: expected refusal {code}, got {known[key]['status']} {known[key]['code']}")
            continue
        if key not in got:
            wrong.append(f"{dumps(request)}: expected a restored saga, got {known[key]['status']} {known[key]['code']}: {known[key]['message']}")
            continue
        different = differences(expected, got[key])
        if different or not same_order(expected["context"], got[key]["context"]):
            wrong.append(f"{dumps(request)}: {different or 'order of the context'}")
    assert not wrong, f"{len(wrong)} of {len(requests)} differ; the first:\n" + "\n".join(wrong[:3])
    assert len(refusals) >= 5 and len(got) > 100, f"the requests were not varied enough: {refusals}, {len(got)} restored"
    # The new sagas have a history at once, and no original was changed.
    world.await_caught_up()
    newest_states_equal_model(process, world.judge())


def refusal_cases():
    yield "saga_not_found", [], replay("no such saga")
    yield "expired", failed("r-1").stream(), replay("r-1", expires_at="2020-01-01T00:00:00Z")
    yield "saga_running", Story("r-2").start().done("reserve_inventory").stream(), replay("r-2", {"latest": True})
    yield "saga_completed", completed("r-16").stream(), replay("r-16")
    yield "checkpoint_not_found", failed("r-3").stream(), replay("r-3", {"step": "no such step"})
    yield "checkpoint_not_found", failed("r-4").stream(), replay("r-4", {"at": "2001-01-01T00:00:00Z"})
    yield "override_invalid", failed("r-5").stream(), replay("r-5", override={"patch": [{"op": "remove", "path": "/none"}]})
    yield "override_conflict", failed("r-6").stream(), replay("r-6", override={"patch": [{"op": "test", "path": "/amount", "value": 1}]})
    yield "not_permitted", failed("r-7").stream(), replay("r-7", target="somewhere.else")
    yield "id_taken", failed("r-8").stream(), replay("r-8", new_saga_id="r-8")
    yield "request_invalid", failed("r-9").stream(), replay("r-9", new_saga_id="")
    yield "request_invalid", failed("r-10").stream(), replay("r-10", {"step": "a", "latest": True})
    yield "request_invalid", failed("r-11").stream(), replay("r-11", mode="sideways")
    yield "request_invalid", failed("r-12").stream(), {**replay("r-12"), "reason": None}
    yield "request_invalid", failed("r-13").stream(), replay("r-13", {"at": "2026-01-01T00:00:00"})
    yield "request_invalid", failed("r-14").stream(), {"request_id": str(uuid.uuid4()), "command": "UNDO", "saga_id": "r-14", "replay_id": str(uuid.uuid4()), "reason": "x", "requested_by": "y"}
    yield "steps_compensated", (failed("r-15").event("COMPENSATION_STARTED").event("STEP_COMPENSATED", "reserve_inventory").event("SAGA_COMPENSATED").stream()), replay("r-15")


def test_each_refusal_has_its_code_in_the_log(world):
    world.start()
    cases = list(refusal_cases())
    for _, stream, _ in cases:
        world.send(stream)
    for _, _, request in cases:
        world.request(request)

    def refused():
        by_request = {record["request_id"]: record for record in log_records(world).values()}
        assert len(by_request) >= len(cases), f"{len(by_request)} of {len(cases)}"
        return by_request
    by_request = wait_for("refusals in the log", refused, 60)
    got = [(request["saga_id"], by_request[request["request_id"]]["status"], by_request[request["request_id"]]["code"]) for _, _, request in cases]
    assert got == [(request["saga_id"], "refused", code) for code, _, request in cases]
    assert not world.log.read(world.restored)


def test_what_is_no_request_is_a_dead_letter(world):
    world.start()
    good = replay("order-1")
    world.send(failed("order-1").stream())
    bad = [("order-1", b"{not json"), ("order-1", dumps({**good, "command": "DANCE"}).encode()), ("order-1", dumps({**good, "request_id": None}).encode()),
           ("another key", dumps({**good, "request_id": str(uuid.uuid4())}).encode()), ("order-1", None)]
    for key, value in bad:
        world.log.send(world.requests, key, value)
    world.request(good)
    await_log(world, ids([good]))

    def letters():
        found = world.log.read(world.dead_letters)
        return found if len(found) >= len(bad) else None
    found = wait_for("dead letters", letters, 30)
    assert sorted((m.key(), m.value() or b"") for m in found) == sorted((key.encode(), value or b"") for key, value in bad)
    assert {dict(m.headers())["resaga-code"] for m in found} == {b"invalid_request"}
    replayed_exactly_once(world, [good])


def test_a_request_seen_before_is_dropped_and_a_second_replay_is_refused(world):
    process = world.start()
    world.send(failed("order-1").stream())
    first, second = replay("order-1"), replay("order-1")
    for request in (first, first, first, second):
        world.request(request)
    known = await_log(world, ids([first, second]))
    assert (known[ids([second])[0]]["status"], known[ids([second])[0]]["code"]) == ("refused", "already_replayed")
    replayed_exactly_once(world, [first])
    # Over HTTP: the same body again gives the same answer, another body is a conflict.
    third = replay("order-1", allow_repeat=True)
    once, again = process.post("/v1/replays", dumps(third)), process.post("/v1/replays", dumps(third))
    assert (once.status, once.body) == (again.status, again.body) == (202, {
        "request_id": third["request_id"], "replay_id": ids([third])[0], "new_saga_id": new_saga_id(ids([third])[0], "order-1")})
    other = process.post("/v1/replays", dumps({**third, "reason": "another"}))
    assert (other.status, other.code) == (409, "id_taken")
    refused = process.post("/v1/replays", dumps(replay("order-1")))
    assert (refused.status, refused.code) == (409, "already_replayed")
    assert process.post("/v1/replays", dumps(replay("nobody"))).status == 404
    await_log(world, ids([third]))
    replayed_exactly_once(world, [first, third])


def test_a_dry_run_publishes_nothing_and_the_real_run_follows(world):
    process = world.start()
    world.send(failed("order-1").stream())
    world.await_caught_up()
    request = replay("order-1", override={"merge": {"payment_token": "tok_new"}})
    plan = process.post("/v1/replays", dumps({**request, "dry_run": True}))
    assert plan.status == 200, plan
    expected = restored(world.judge().sagas["order-1"], {**request, "dry_run": True}, 0)
    assert not {name for name in differences(expected, plan.body["plan"])} - {"restored_at"}
    assert plan.body["diff"] == [{"op": "add", "path": "/payment_token", "value": "tok_new"}]
    assert plan.body["runs"] == ["charge_payment"]
    wait_for("the dry run in the log", lambda: log_records(world)[ids([request])[0]]["status"] == "dry_run", 30)
    assert not world.log.read(world.restored)
    world.request(request)
    await_log(world, ids([request]), waiting=("accepted", "dry_run"))
    replayed_exactly_once(world, [request])
    assert published(world)[ids([request])[0]]["context"]["payment_token"] == "tok_new"


def test_a_completed_saga_is_replayed_only_when_that_is_said(world):
    process = world.start()
    world.send([*completed("paid").stream(), *completed("told").stream()])
    world.await_caught_up()
    refused = process.post("/v1/replays", dumps(replay("paid")))
    assert (refused.status, refused.code) == (409, "saga_completed")
    plan = process.post("/v1/replays", dumps(replay("paid", dry_run=True)))
    assert (plan.status, plan.body["would_refuse"], plan.body["runs"]) == (200, "saga_completed", ["charge_payment", "ship_order", "send_mail"])
    undo = process.post("/v1/replays", dumps(replay("paid", {"latest": True}, mode="compensate", dry_run=True)))
    assert (undo.body["plan"]["completed_steps"], undo.body["runs"], undo.body["would_refuse"]) == (STEPS[::-1], [], None)
    said = world.run("replay", "run", "paid", "--from-step", "charge_payment", "--reason", "x", "--dry-run", "--server", f"http://127.0.0.1:{process.port}")
    assert said.returncode == 0 and "saga_completed" in said.stderr and "--allow-completed" in said.stderr, said.stderr
    # The same on the topic, and with the word that lets it pass.
    first, second = replay("told"), replay("told", allow_completed=True)
    send(world, [first, second])
    known = await_log(world, ids([first, second]))
    assert [(known[key]["status"], known[key]["code"]) for key in ids([first, second])] == [("refused", "saga_completed"), ("published", None)]
    again = world.run("replay", "run", "told", "--from-step", "charge_payment", "--reason", "x", "--allow-completed", "--dry-run", "--server", f"http://127.0.0.1:{process.port}")
    assert "already_replayed" in again.stderr and "publishes it" not in again.stderr, again.stderr
    replayed_exactly_once(world, [second])


def test_a_request_waits_until_not_before_and_can_be_cancelled(world):
    process = world.start("steady")
    for saga_id in ("waits", "cancelled", "far"):
        world.send(failed(saga_id).stream())
    due = times.now() + 9_000_000
    waits = replay("waits", not_before=times.text(due))
    cancelled = replay("cancelled", not_before=times.text(due))
    far = replay("far", not_before=times.text(due + 86_400_000_000))
    send(world, [waits, cancelled, far])
    waiting = wait_for("three waiting requests", lambda: log_records(world) if len(log_records(world)) == 3 else None, 20)
    assert {record["status"] for record in waiting.values()} == {"accepted"}
    assert loads(dumps(waiting[ids([waits])[0]]["request"]))["request_id"] == waits["request_id"]
    # A restart forgets nothing.
    assert process.terminate()[0] == 0
    process = world.start("steady")
    answer = process.post(f"/v1/replays/{ids([cancelled])[0]}/cancel", dumps({"requested_by": "ops", "reason": "changed my mind"}))
    assert answer.status == 202, answer
    known = await_log(world, ids([waits, cancelled]), within=60)
    assert known[ids([cancelled])[0]]["status"] == "cancelled"
    assert known[ids([far])[0]]["status"] == "accepted"
    replayed_exactly_once(world, [waits])
    assert published(world)[ids([waits])[0]]["restored_at"] == times.text(due)
    assert times.now() >= due
    again = process.post(f"/v1/replays/{ids([waits])[0]}/cancel", dumps({"requested_by": "ops", "reason": "too late"}))
    assert (again.status, again.code) == (409, "request_invalid")
    unknown = process.post(f"/v1/replays/{uuid.uuid4()}/cancel", dumps({"requested_by": "ops", "reason": "x"}))
    assert (unknown.status, unknown.code) == (404, "replay_not_found")


@pytest.mark.parametrize(("end", "status"), [("SAGA_COMPLETED", "completed"), ("SAGA_FAILED", "failed"), ("SAGA_COMPENSATED", "compensated"), ("SAGA_CANCELLED", "saga_cancelled")])
def test_the_outcome_of_the_restored_saga_comes_into_the_log(world, end, status):
    process = world.start()
    world.send(failed("order-1").stream())
    request = replay("order-1")
    world.request(request)
    key = ids([request])[0]
    await_log(world, [key])
    child = new_saga_id(key, "order-1")
    story = Story(child).event("STEP_STARTED", "charge_payment")
    if end == "SAGA_COMPLETED":
        story.done(*STEPS[1:])
    story.event(end)
    # Its engine counts its own sequence and clock from now on.
    stream = [(saga_id, {**event, "occurred_at": None, "sequence": None}) for saga_id, event in story.stream()]
    world.send(stream)
    record = wait_for("outcome in the log", lambda: (r := log_records(world)[key])["outcome"] and r, 30)
    assert (record["status"], record["outcome"]) == (status, status)
    over_http = wait_for("outcome over HTTP", lambda: (r := process.replay(key).body)["outcome"] and r, 15)
    assert {**record, "request": None} == {**over_http, "request": None} and "request" not in over_http
    tree = process.get("/v1/sagas/order-1/lineage").body
    assert tree["saga_id"] == "order-1" and tree["children"][0]["saga_id"] == child and tree["children"][0]["replay_id"] == key
    listed = process.get("/v1/sagas/order-1/replays").body["replays"]
    assert [record["replay_id"] for record in listed] == [key]
    # The original is as it was (guarantee 6).
    newest_states_equal_model(process, world.judge())


def test_requests_that_wait_together_see_what_the_ones_before_them_restored(make_world):
    world = make_world(partitions=1)
    world.send(failed("order-1").stream())
    # Read together, executed one by one in order: each replays what the one before it restores.
    chain = ["order-1", "copy-1", "copy-2", "copy-3", "copy-4"]
    requests = [replay(of, {"start": True}, new_saga_id=made, allow_running=True) for of, made in itertools.pairwise(chain)]
    send(world, requests)
    world.start(**{"replay.max_batch_requests": 1})
    known = await_log(world, ids(requests))
    assert {record["status"] for record in known.values()} == {"published"}, known
    replayed_exactly_once(world, requests)


def test_a_replay_of_a_replay_has_the_same_root_and_one_more_depth(world):
    world.start()
    world.send(failed("order-1").stream())
    saga_id, requests = "order-1", []
    for depth in (1, 2, 3):
        request = replay(saga_id, allow_running=True)
        if depth > 1:
            request["from"] = {"start": True}
        world.request(request)
        requests.append(request)
        key = ids([request])[0]
        await_log(world, [key])
        value = published(world)[key]
        assert (int(value["depth"]), value["root_saga_id"], value["original_saga_id"]) == (depth, "order-1", saga_id)
        saga_id = value["saga_id"]
    replayed_exactly_once(world, requests)


def test_a_replay_sees_everything_that_was_recorded_before_it(world):
    """Requests right behind the events they are about: never answered from less."""
    world.start(**{"cold.flush_interval": "5s"})
    requests = []
    for number in range(100):
        story = failed(f"order-{number}")
        for event in story.events:
            world.log.send(world.events, story.saga_id, event)
        world.log.flush()
        requests.append(replay(story.saga_id, {"latest": True}))
        world.request(requests[-1])
    await_log(world, ids(requests))
    replayed_exactly_once(world, requests)
    assert {int(value["checkpoint"]["sequence"]) for value in published(world).values()} == {len(failed("x").events)}




def test_failed_sagas_are_found_and_what_was_replayed_is_known(world):
    process = world.start()
    for number in range(30):
        world.send((failed if number % 3 == 0 else completed)(f"order-{number}").stream())
    world.await_caught_up()
    found = set()
    cursor = None
    while True:
        page = process.get("/v1/sagas", status="failed", failed_step="charge_payment", error_code="TIMEOUT", limit=4, after=cursor).body
        found |= {saga["saga_id"] for saga in page["sagas"]}
        cursor = page["next"]
        if cursor is None:
            break
    assert found == {f"order-{number}" for number in range(0, 30, 3)}
    request = replay("order-0")
    world.request(request)
    await_log(world, ids([request]))
    wait_for("the replayed one drops out", lambda: {
        saga["saga_id"] for saga in process.get("/v1/sagas", status="failed", replay="none", limit=100).body["sagas"]} == found - {"order-0"}, 20)
