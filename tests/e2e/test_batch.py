"""Batches: many sagas under one request, planned, limited, paused, cancelled, retried; each saga once, whatever dies."""

import random
import uuid

import pytest

from checks import log_records, replayed_exactly_once
from jsontext import dumps, loads
from model import differences
from plan import new_saga_id, replay_id, restored
from resaga import run
from sagas import Story, completed, failed, replay
from servers.process import wait_for

WHO = {"requested_by": "ops@example.org", "reason": "INC-4412"}
COUNTS = ["accepted", "published", "refused", "completed", "failed", "compensated", "cancelled", "saga_cancelled", "undoing", "undone", "undo_failed"]
FROM = {"from": {"step": "charge_payment"}}
# Of a process that a named point killed.
ABORTED = -6


def outage(world, count, name="order"):
    ids = [f"{name}-{number}" for number in range(count)]
    for saga_id in ids:
        for _, event in failed(saga_id).stream():
            world.log.send(world.events, saga_id, event)
    world.log.flush()
    return ids


def submit(process, batch, **members):
    answer = process.post("/v1/batches", dumps({"batch": batch, **WHO, **members}), timeout=60)
    assert answer.status == 202, answer.body
    return answer.body["batch_id"]


def publish(world, batch, request_id=None):
    """As a record of the requests topic."""
    request_id = request_id or str(uuid.uuid4())
    world.log.send(world.requests, request_id, {"request_id": request_id, "command": "BATCH", "batch": batch, **WHO})
    world.log.flush()
    return request_id


def command(world, name, batch_id, **members):
    request_id = str(uuid.uuid4())
    world.log.send(world.requests, batch_id, {"request_id": request_id, "command": name, "batch_id": batch_id, **WHO, **members})
    world.log.flush()
    return request_id


def look(process, batch_id):
    """How far a batch is; its counts add up whenever they are read."""
    answer = process.get(f"/v1/batches/{batch_id}")
    if answer.status == 404:
        return None
    assert answer.status == 200, answer.body
    batch = answer.body
    assert list(batch["counts"]) == COUNTS
    assert sum(int(n) for n in batch["counts"].values()) == int(batch["total"]), batch
    return batch


def until(process, batch_id, *statuses, within=90):
    def there():
        batch = look(process, batch_id)
        assert batch and batch["status"] in statuses, batch
        return batch
    return wait_for(f"batch {statuses}", there, within, every=0.1)


def counts(batch):
    return {name: int(count) for name, count in batch["counts"].items() if int(count)}


def finish(world, saga_id, kind="SAGA_COMPLETED"):
    """The consumer of a restored saga brings it to an end."""
    world.log.send(world.events, saga_id, {"event_id": f"{saga_id}/end", "saga_id": saga_id, "saga_name": "order-processing", "kind": kind})


def requests_of(batch_id, ids):
    return [replay(saga_id, request_id=batch_id) for saga_id in ids]


def test_a_batch_restores_each_saga_with_its_own_correction_and_reports_it(world):
    process = world.start()
    ids = outage(world, 60)
    world.send(completed("done-1").stream())
    world.await_caught_up()
    overrides = {saga_id: {"merge": {"payment_token": f"tok-{saga_id}"}} for saga_id in ids[:-1]}
    batch_id = submit(process, {"name": "gateway outage", "saga_ids": [*ids, "no such", "done-1", ids[0]], "override": {"merge": {"gateway": "b"}},
                                "overrides": {**overrides, "done-1": {"merge": {}}, "no such": {"merge": {}}}, "labels": {"incident": "4412"}, **FROM})
    batch = until(process, batch_id, "published")
    assert (batch["name"], int(batch["total"]), counts(batch)) == ("gateway outage", 62, {"published": 59, "refused": 3})
    replayed_exactly_once(world, requests_of(batch_id, ids[:-1]))
    codes = {record["original_saga_id"]: record["code"] for record in log_records(world).values() if record["status"] == "refused"}
    assert codes == {ids[-1]: "override_missing", "no such": "saga_not_found", "done-1": "saga_completed"}
    # Each is what a single request with both overrides would give, from the judge's own plan.
    model = world.judge()
    accepted = {m.timestamp()[1] * 1_000 for m in world.log.read(world.requests) if m.key().decode() == batch_id}
    got = {value["original_saga_id"]: value for value in (loads(m.value().decode()) for m in world.log.read(world.restored))}
    for saga_id in ids[:-1]:
        both = {"gateway": "b", "payment_token": f"tok-{saga_id}"}
        request = replay(saga_id, request_id=batch_id, override={"merge": both}, labels={"incident": "4412"})
        expected = {**restored(model.sagas[saga_id], request, min(accepted)), "batch_id": batch_id}
        assert not differences(expected, got[saga_id]), saga_id
    for number, saga in enumerate(got.values()):
        finish(world, saga["saga_id"], "SAGA_FAILED" if number == 0 else "SAGA_COMPLETED")
    world.log.flush()
    batch = until(process, batch_id, "done")
    assert counts(batch) == {"completed": 58, "failed": 1, "refused": 3}
    report = run(["batch", "report", batch_id, "-o", "csv", "--server", f"http://127.0.0.1:{process.port}"], world.settings)
    assert report.returncode == 0 and len(report.stdout.splitlines()) == 63, report
    assert run(["batch", "get", batch_id, "--server", f"http://127.0.0.1:{process.port}"], world.settings).returncode == 3


def test_a_plan_runs_exactly_its_list_with_the_ids_that_it_says(world):
    process = world.start()
    ids = outage(world, 30)
    world.send(Story("order-still-running").start().done("reserve_inventory").broken("charge_payment").stream())
    world.await_caught_up()
    selector = {"failed_step": "charge_payment", "saga_name": "order-processing"}
    answer = process.post("/v1/batches", dumps({"batch": {"selector": selector, "dry_run": True, **FROM}, **WHO}))
    assert answer.status == 200, answer.body
    plan = answer.body
    assert (int(plan["total"]), {k: int(v) for k, v in plan["counts"].items()}) == (31, {"replay": 30, "saga_running": 1})
    verdicts = {row["saga_id"]: (row["verdict"], row["code"], row["new_saga_id"]) for row in plan["sagas"]}
    expected = {saga_id: ("replay", None, new_saga_id(replay_id(plan["plan_id"], saga_id), saga_id)) for saga_id in ids}
    assert verdicts == {**expected, "order-still-running": ("refuse", "saga_running", None)}
    assert not log_records(world) and not list(world.log.read(world.restored)), "a plan publishes nothing"
    pages, after = [], None
    while True:
        page = process.get(f"/v1/batches/plans/{plan['plan_id']}", limit=7, after=after).body
        pages += page["sagas"]
        after = page["next"]
        if after is None:
            break
    assert pages == plan["sagas"]
    # What matches later, or could go by now, is not in it.
    world.send(failed("order-later").stream())
    world.log.send(world.events, "order-still-running", {"event_id": "late", "saga_id": "order-still-running", "saga_name": "order-processing", "kind": "SAGA_FAILED"})
    world.log.flush()
    world.await_caught_up()
    for _ in range(2):
        answer = process.post("/v1/batches", dumps({"plan_id": plan["plan_id"], **WHO}))
        assert (answer.status, answer.body) == (202, {"batch_id": plan["plan_id"]})
    batch = until(process, plan["plan_id"], "published")
    assert counts(batch) == {"published": 30, "refused": 1}
    replayed_exactly_once(world, requests_of(plan["plan_id"], ids))
    got = {value["original_saga_id"]: value["saga_id"] for value in (loads(m.value().decode()) for m in world.log.read(world.restored))}
    assert got == {saga_id: new for saga_id, (_, _, new) in expected.items()}


def test_a_batch_on_the_topic_finds_its_sagas_and_is_done_once(world):
    """Sent right behind the events, and twice."""
    process = world.start()
    ids = outage(world, 120)
    request_id = publish(world, {"selector": {"status": ["failed"], "failed_step": "charge_payment"}, **FROM})
    publish(world, {"selector": {"status": ["failed"], "failed_step": "charge_payment"}, **FROM}, request_id)
    batch = until(process, request_id, "published")
    assert counts(batch) == {"published": 120}
    replayed_exactly_once(world, requests_of(request_id, ids))


def test_rate_and_replays_in_flight_are_limited(world):
    process = world.start()
    outage(world, 40)
    batch_id = publish(world, {"saga_ids": [f"order-{n}" for n in range(40)], "rate_per_second": 10, **FROM})
    batch = until(process, batch_id, "running")
    assert batch["eta"] is not None and float(batch["rate_per_second"]) == 10
    until(process, batch_id, "published", within=20)
    moments = sorted(m.timestamp()[1] for m in world.log.read(world.restored))
    assert 2_400 < moments[-1] - moments[0] < 12_000, "40 replays, 10 of them at once, 10 a second"

    outage(world, 12, "flight")
    batch_id = publish(world, {"saga_ids": [f"flight-{n}" for n in range(12)], "max_in_flight": 3, **FROM})
    finished = set()
    while len(finished) < 12:
        batch = wait_for("three under way", lambda: (b := look(process, batch_id)) and int(b["counts"]["published"]) > 0 and b, 30, every=0.1)
        assert int(batch["counts"]["published"]) <= 3, batch
        under_way = [loads(m.value().decode()) for m in world.log.read(world.restored)]
        under_way = [s["saga_id"] for s in under_way if s["batch_id"] == batch_id and s["saga_id"] not in finished]
        assert len(under_way) <= 3
        for saga_id in under_way:
            finish(world, saga_id)
            finished.add(saga_id)
        world.log.flush()
        wait_for("their ends", lambda: int(look(process, batch_id)["counts"]["completed"]) == len(finished), 30, every=0.1)
    assert counts(until(process, batch_id, "done")) == {"completed": 12}


def test_a_batch_pauses_goes_on_and_is_cancelled(world):
    process = world.start()
    ids = outage(world, 300)
    batch_id = submit(process, {"saga_ids": ids, "rate_per_second": 20, **FROM})
    wait_for("the first of them", lambda: (batch := look(process, batch_id)) and counts(batch).get("published"), 20, every=0.05)
    answer = process.post(f"/v1/batches/{batch_id}/pause", dumps(WHO))
    assert (answer.status, answer.body["status"], answer.body["paused_because"]) == (202, "paused", "requested"), answer.body
    again = process.post(f"/v1/batches/{batch_id}/pause", dumps(WHO))
    assert (again.status, again.code) == (409, "request_invalid")
    process.exited_within(1)
    before = int(look(process, batch_id)["counts"]["published"])
    process.exited_within(1.5)
    assert int(look(process, batch_id)["counts"]["published"]) == before
    # A pause outlives the process.
    process.terminate()
    process = world.start()
    assert until(process, batch_id, "paused")
    command(world, "BATCH_RESUME", batch_id)
    until(process, batch_id, "running")
    wait_for("more of them", lambda: int(look(process, batch_id)["counts"]["published"]) > before or None, 20)
    assert process.post(f"/v1/batches/{batch_id}/cancel", dumps(WHO)).status == 202
    batch = until(process, batch_id, "cancelled")
    process.exited_within(1.5)
    last = look(process, batch_id)
    assert last["status"] == "cancelled" and set(counts(last)) == {"published", "cancelled"} and int(last["counts"]["published"]) < 300, (batch, last)
    assert process.post(f"/v1/batches/{batch_id}/resume", dumps(WHO)).code == "request_invalid"
    assert process.get("/v1/batches/no-such").code == "batch_not_found"
    listed = process.get("/v1/batches", status="cancelled").body["batches"]
    assert [b["batch_id"] for b in listed] == [batch_id]


def test_too_many_failures_pause_a_batch_and_those_that_failed_are_retried(world):
    process = world.start()
    ids = outage(world, 500)
    missing = [f"no-such-{n}" for n in range(6)]
    batch_id = submit(process, {"saga_ids": [*missing, *ids], "max_failures": 5, **FROM})
    batch = until(process, batch_id, "paused")
    assert batch["paused_because"] == "max_failures" and int(batch["counts"]["accepted"]) > 0
    command(world, "BATCH_RESUME", batch_id)
    batch = until(process, batch_id, "published")
    assert counts(batch) == {"published": 500, "refused": 6}
    # Two of the restored sagas fail; their originals are replayed once more, with another override, and the six are refused again.
    got = [loads(m.value().decode()) for m in world.log.read(world.restored)]
    for saga in got[:2]:
        finish(world, saga["saga_id"], "SAGA_FAILED")
    world.log.flush()
    wait_for("two failed", lambda: int(look(process, batch_id)["counts"]["failed"]) == 2, 30)
    answer = process.post(f"/v1/batches/{batch_id}/retry-failed", dumps({**WHO, "override": {"merge": {"token": "second"}}}))
    assert answer.status == 202, answer.body

    def retried():
        second = [s for s in (loads(m.value().decode()) for m in world.log.read(world.restored)) if s["context"].get("token") == "second"]
        assert len(second) == 2, len(second)
        return second
    second = wait_for("both replayed once more", retried, 30)
    assert {s["original_saga_id"] for s in second} == {s["original_saga_id"] for s in got[:2]} and {s["batch_id"] for s in second} == {batch_id}
    assert {s["request_id"] for s in second} != {batch_id}
    assert counts(until(process, batch_id, "published")) == {"published": 500, "refused": 6}
    for saga in [*got[2:], *second]:
        finish(world, saga["saga_id"])
    world.log.flush()
    assert counts(until(process, batch_id, "done")) == {"completed": 500, "refused": 6}


def test_a_retry_in_the_middle_does_not_hold_its_batch_up(world):
    """Of more sagas than may be on their way without a record: their first replays stay seen when others follow them."""
    process = world.start()
    ids = outage(world, 900)
    missing = [f"no-such-{n}" for n in range(300)]
    batch_id = submit(process, {"saga_ids": [*missing, *ids], "max_failures": 250, **FROM})
    until(process, batch_id, "paused")
    assert process.post(f"/v1/batches/{batch_id}/retry-failed", dumps(WHO)).status == 202
    again = process.post(f"/v1/batches/{batch_id}/retry-failed", dumps(WHO))
    assert (again.status, again.code) == (409, "request_invalid"), "one at a time"
    assert process.post(f"/v1/batches/{batch_id}/resume", dumps(WHO)).status == 202
    assert counts(until(process, batch_id, "published", within=60)) == {"published": 900, "refused": 300}
    retried = {r["original_saga_id"] for r in log_records(world).values() if r["batch_id"] == batch_id and r["request_id"] != batch_id}
    assert retried <= set(missing) and len(retried) > 250


def test_a_whole_batch_is_undone_each_replay_once(world):
    process = world.start()
    ids = outage(world, 40)
    batch_id = submit(process, {"saga_ids": [*ids, "no such"], **FROM})
    until(process, batch_id, "published")
    made = [loads(m.value().decode()) for m in world.log.read(world.restored)]
    for number, saga in enumerate(made):
        if number < 38:
            world.send(Story(saga["saga_id"]).done("charge_payment").event("SAGA_COMPLETED").stream())
    wait_for("their ends", lambda: int(look(process, batch_id)["counts"]["completed"]) == 38 or None, 30)
    answer = process.post(f"/v1/batches/{batch_id}/undo", dumps(WHO))
    assert answer.status == 202, answer.body
    wait_for("all asked", lambda: int(look(process, batch_id)["counts"]["undoing"]) == 38 or None, 30)
    # Two still run: theirs is refused, and they stay as they are.
    assert counts(look(process, batch_id)) == {"undoing": 38, "published": 2, "refused": 1}
    refused = [r for r in log_records(world).values() if r["command"] == "UNDO" and r["status"] == "refused"]
    assert {r["code"] for r in refused} == {"saga_running"} and len(refused) == 2
    asked = [v for v in (loads(m.value().decode()) for m in world.log.read(world.restored)) if v["mode"] == "compensate"]
    assert len(asked) == 38 and {tuple(v["completed_steps"]) for v in asked} == {("charge_payment",)} and {v["batch_id"] for v in asked} == {batch_id}
    for saga in asked:
        finish(world, saga["saga_id"] + "", "SAGA_COMPENSATED")
    world.log.flush()
    wait_for("all undone", lambda: counts(look(process, batch_id)) == {"undone": 38, "published": 2, "refused": 1} or None, 30)
    report = process.get(f"/v1/batches/{batch_id}/replays", limit=100).body["replays"]
    assert len(report) == 41 and {r["command"] for r in report} == {"REPLAY"}
    # Undone sagas may be replayed again; the two that stand may not.
    second = submit(process, {"saga_ids": ids, **FROM})
    assert counts(until(process, second, "published")) == {"published": 38, "refused": 2}


def test_batches_survive_a_crash_at_each_named_point(world, full):
    """While it expands and while its replays are committed: each saga once, and the counts add up at every look."""
    process = world.start("steady")
    ids = outage(world, 900)
    world.await_caught_up()
    process.terminate()
    batches = []
    points = ["replay.before_begin", "replay.after_produce", "replay.after_send_offsets", "replay.before_commit", "replay.after_commit"]
    share = len(ids) // len(points)
    for number, point in enumerate(points):
        mine = ids[number * share:(number + 1) * share]
        batches.append((publish(world, {"saga_ids": mine, **FROM}), mine))
        process = world.launch("steady", **{"RESAGA_CRASH_AT": f"{point}:{random.Random(number).randrange(1, 4)}"})
        assert process.exited_within(60) == ABORTED, f"{point} not reached\n{process.tail()}"
    process = world.start("steady")
    for batch_id, mine in batches:
        assert counts(until(process, batch_id, "published")) == {"published": len(mine)}
    replayed_exactly_once(world, [request for batch_id, mine in batches for request in requests_of(batch_id, mine)])


def test_a_batch_whose_list_is_lost_or_was_changed_refuses_to_run(world):
    process = world.start()
    ids = outage(world, 3)
    world.await_caught_up()
    plan = process.post("/v1/batches", dumps({"batch": {"saga_ids": ids, "dry_run": True, **FROM}, **WHO})).body
    keys = [key for key in world.archive.keys() if f"batches/{plan['plan_id']}/" in key]
    rows = next(key for key in keys if key.endswith(".jsonl"))
    world.archive.put(rows, world.archive.get(rows).replace(b"order-1", b"order-9"))
    assert process.post("/v1/batches", dumps({"plan_id": plan["plan_id"], **WHO})).status == 202
    batch = until(process, plan["plan_id"], "cancelled")
    assert batch["code"] == "request_invalid" and "SHA-256" in batch["message"] and counts(batch) == {"cancelled": 3}
    other = process.post("/v1/batches", dumps({"plan_id": str(uuid.uuid4()), **WHO}))
    assert (other.status, other.code) == (404, "plan_not_found")
    missing = publish(world, {"plan_id": str(uuid.uuid4())})
    assert until(process, missing, "cancelled")["code"] == "request_invalid"
    assert not list(world.log.read(world.restored))


def test_the_command_line_plans_asks_and_runs(world):
    process = world.start()
    ids = outage(world, 30)
    world.await_caught_up()
    table = world.directory / "tokens.csv"
    table.write_text("saga_id,payment_token\n" + "".join(f"{saga_id},tok-{saga_id}\n" for saga_id in ids))
    server = ["--server", f"http://127.0.0.1:{process.port}"]
    flags = ["--overrides", f"@{table}", "--from-step", "charge_payment", "--reason", "INC-4412", *server]
    asked = run(["batch", "run", *flags], world.settings)
    assert asked.returncode == 9 and "--confirm 30" in asked.stderr and "30 of 30" in asked.stderr, asked
    assert run(["batch", "run", *flags, "--yes"], world.settings).returncode == 9
    assert run(["batch", "run", *flags, "--confirm", "29"], world.settings).returncode == 9
    assert not list(world.log.read(world.restored))
    planned = run(["batch", "plan", *flags, "-o", "json"], world.settings)
    plan = loads(planned.stdout)
    assert planned.returncode == 0 and int(plan["counts"]["replay"]) == 30
    done = run(["batch", "run", "--plan", plan["plan_id"], "--reason", "INC-4412", "-o", "json", *server], world.settings)
    assert (done.returncode, loads(done.stdout)) == (0, {"batch_id": plan["plan_id"]}), done
    until(process, plan["plan_id"], "published")
    tokens = {s["original_saga_id"]: s["context"]["payment_token"] for s in (loads(m.value().decode()) for m in world.log.read(world.restored))}
    assert tokens == {saga_id: f"tok-{saga_id}" for saga_id in ids}


def test_declared_effects_are_told_before_they_happen_again(world):
    declared = "RESAGA__SAGA__order-processing__EFFECTS__"
    process = world.start(**{f"{declared}charge_payment": "charges the card", f"{declared}send_mail": "tells the customer",
                             f"{declared}reserve_inventory": "holds the goods"})
    ids = outage(world, 30)
    for _, event in [*completed("paid").stream(), *Story("other", name="refund").start().broken("charge_payment").event("SAGA_FAILED").stream()]:
        world.log.send(world.events, event["saga_id"], event)
    world.log.flush()
    world.await_caught_up()

    def dry(saga_id, start=None, **members):
        answer = process.post("/v1/replays", dumps(replay(saga_id, start, dry_run=True, **members)))
        assert answer.status == 200, answer.body
        return answer.body["effects"]
    card, mail = ({"step": "charge_payment", "effect": "charges the card"}, {"step": "send_mail", "effect": "tells the customer"})
    assert dry(ids[0]) == [card]
    assert dry("paid") == [card, mail]
    assert dry("paid", force_failure=True) == [mail]
    assert dry("other") == [], "of another saga name"
    goods = {"step": "reserve_inventory", "effect": "holds the goods"}
    assert dry("paid", {"latest": True}, mode="compensate") == [mail, card, goods]

    batch = {"saga_ids": [*ids, "paid", "other", "missing"], "allow_completed": True, **FROM}
    plan = process.post("/v1/batches", dumps({"batch": {**batch, "dry_run": True}, **WHO})).body
    expected = [("charge_payment", "charges the card", 31), ("send_mail", "tells the customer", 1)]
    assert [(e["step"], e["effect"], int(e["count"])) for e in plan["effects"]] == expected
    assert process.get(f"/v1/batches/plans/{plan['plan_id']}", limit=2).body["effects"] == plan["effects"]

    listed = world.directory / "ids"
    listed.write_text("".join(f"{saga_id}\n" for saga_id in batch["saga_ids"]))
    flags = ["--ids", f"@{listed}", "--from-step", "charge_payment", "--allow-completed", "--reason", "x", "--server", f"http://127.0.0.1:{process.port}"]
    for command, code in (("plan", 0), ("run", 9)):
        said = run(["batch", command, *flags], world.settings)
        assert said.returncode == code and "charge_payment: charges the card, 31 times" in said.stderr and "tells the customer, once" in said.stderr, said
    said = run(["replay", "run", "paid", *flags[2:], "--dry-run"], world.settings)
    assert said.returncode == 0 and "happens again: charge_payment: charges the card\n" in said.stderr, said


@pytest.mark.parametrize("batch", [{}, {"saga_ids": ["a"]}, {"saga_ids": ["a"], "from": {"stp": "x"}}, {"selector": {"statuses": "failed"}, **FROM}, {"saga_ids": ["a"], "dryrun": True, **FROM}])
def test_a_batch_that_cannot_be_meant_is_refused_at_once(world, batch):
    process = world.start()
    answer = process.post("/v1/batches", dumps({"batch": batch, **WHO}))
    assert (answer.status, answer.code) == (400, "request_invalid"), answer.body
    assert not list(world.log.read(world.requests))
