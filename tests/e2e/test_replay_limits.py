"""Replays at the edges: what counts as another replay, and what is too large."""

import base64
import random
import time
import uuid

import times
from checks import await_log, dead_letters, log_records, replayed_exactly_once
from jsontext import dumps
from plan import replay_id
from sagas import Story, failed, replay
from servers.process import wait_for


def post(process, request):
    return process.post("/v1/replays", dumps(request).encode())


def test_a_second_replay_is_refused_at_once_however_soon_it_comes(world):
    process = world.start()
    sagas = [f"order-{number}" for number in range(20)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    for saga_id in sagas:
        first, second = post(process, replay(saga_id)), post(process, replay(saga_id))
        assert (first.status, second.status, second.code) == (202, 409, "already_replayed"), second.body
    assert post(process, replay(sagas[0], allow_repeat=True)).status == 202


def test_a_waiting_replay_with_a_forced_failure_does_not_count(world):
    process = world.start()
    world.send(failed("order-1").stream())
    world.await_caught_up()
    later = times.text(times.now() + 3_600_000_000)
    forced = replay("order-1", {"latest": True}, force_failure=True, not_before=later)
    world.request(forced)
    await_log(world, [replay_id(forced["request_id"], "order-1")], waiting=())
    plain = replay("order-1")
    world.request(plain)
    known = await_log(world, [replay_id(plain["request_id"], "order-1")])
    record = known[replay_id(plain["request_id"], "order-1")]
    assert (record["status"], record["code"]) == ("published", None)
    listed = process.get("/v1/sagas", replay="open", limit=100).body["sagas"]
    assert [saga["saga_id"] for saga in listed] == ["order-1"], "the restored saga itself was not replayed"


def test_what_is_too_large_for_a_step_event_is_refused(make_world):
    world = make_world(**{"limits.max_record": "64KiB"})
    process = world.start()
    long = "L" * 60_000
    story = Story("order-1").start()
    story.event("CONTEXT_UPDATED", labels={"a": long})
    for number in range(3):
        story.event("CONTEXT_UPDATED", context_set={f"k{number}": long})
    story.broken("charge_payment").event("SAGA_FAILED", "charge_payment")
    world.send(story.stream())
    world.await_caught_up()
    large = replay("order-1", labels={"b": long})
    world.request(large)
    key = replay_id(large["request_id"], "order-1")
    assert (await_log(world, [key])[key]["status"], log_records(world)[key]["code"]) == ("refused", "too_large")
    fits = replay("order-1")
    world.request(fits)
    key = replay_id(fits["request_id"], "order-1")
    record = await_log(world, [key])[key]
    assert record["status"] == "published"
    world.await_caught_up()
    assert process.state(record["new_saga_id"]).status == 200 and not dead_letters(world)


def test_a_lineage_gets_no_more_replays_than_it_may_unless_that_is_said(world):
    process = world.start(**{"replay.max_replays": "2"})
    world.send([*failed("order-1").stream(), *failed("order-2").stream()])
    world.await_caught_up()

    def replayed_and_failed(saga_id):
        """Over HTTP; gives the restored saga, which has failed in its turn."""
        answer = post(process, replay(saga_id, {"latest": True}))
        assert answer.status == 202, answer.body
        await_log(world, [answer.body["replay_id"]])
        new = answer.body["new_saga_id"]
        world.send([(new, {"event_id": f"{new}/end", "saga_id": new, "saga_name": "order-processing", "kind": "SAGA_FAILED"})])
        wait_for("its outcome", lambda: process.replay(answer.body["replay_id"]).body["status"] == "failed", 30)
        return new
    first = replayed_and_failed("order-1")
    forced = post(process, replay("order-1", force_failure=True))
    assert forced.status == 202, "those with a forced failure do not count"
    await_log(world, [forced.body["replay_id"]])
    second = replayed_and_failed(first)
    for saga_id in ("order-1", first, second):
        refused = post(process, replay(saga_id, {"latest": True}))
        assert (refused.status, refused.code) == (403, "not_permitted") and "max_replays allows 2" in refused.body["detail"], refused.body
        dry = post(process, replay(saga_id, {"latest": True}, dry_run=True))
        assert (dry.status, dry.body["would_refuse"]) == (200, "not_permitted"), dry.body
    # The same on the topic, and with the word that lets it pass.
    over, said = replay(second, {"latest": True}), replay(second, {"latest": True}, allow_repeat=True)
    keys = [replay_id(request["request_id"], second) for request in (over, said)]
    for request in (over, said):
        world.request(request)
    known = await_log(world, keys)
    assert [(known[key]["status"], known[key]["code"]) for key in keys] == [("refused", "not_permitted"), ("published", None)]
    assert post(process, replay("order-2")).status == 202, "another lineage"


def test_what_its_topic_does_not_take_is_refused_and_holds_nothing_up(world):
    """The events topic takes what brokers take by default, about 1 MB."""
    process = world.start()
    noise = [base64.b64encode(random.Random(n).randbytes(450_000)).decode() for n in range(3)]
    story = Story("order-1").start()
    for number, text in enumerate(noise):
        story.event("CONTEXT_UPDATED", context_set={f"k{number}": text})
    story.broken("charge_payment").event("SAGA_FAILED", "charge_payment")
    world.send(story.stream())
    others = [f"other-{number}" for number in range(40)]
    for saga_id in others:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    requests = [replay(saga_id) for saga_id in [*others[:20], "order-1", *others[20:]]]
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()
    keys = {replay_id(request["request_id"], request["saga_id"]): request["saga_id"] for request in requests}
    await_log(world, keys, within=60)
    refused = {keys[key]: (record["status"], record["code"]) for key, record in log_records(world).items() if record["status"] == "refused"}
    assert refused == {"order-1": ("refused", "too_large")}
    replayed_exactly_once(world, [request for request in requests if request["saga_id"] != "order-1"])
    assert process.get("/readyz").status == 200


def test_a_waiting_request_ends_by_itself(world):
    """Nothing else is asked meanwhile: what comes of a waiting request is written for its own sake."""
    world.start()
    for saga_id in ("expires", "dry"):
        world.send(failed(saga_id).stream())
    soon, sooner = times.text(times.now() + 3_000_000), times.text(times.now() + 2_000_000)
    expires = replay("expires", not_before=soon, expires_at=sooner)
    dry = replay("dry", not_before=soon, dry_run=True)
    missing = replay("no such saga", not_before=soon)
    for request in (expires, dry, missing):
        world.request(request)
    known = await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in (expires, dry, missing)], within=30)
    got = [known[replay_id(r["request_id"], r["saga_id"])] for r in (expires, dry, missing)]
    assert [(record["status"], record["code"]) for record in got] == [("refused", "expired"), ("dry_run", None), ("refused", "saga_not_found")]
    assert not world.log.read(world.restored)


def test_a_cancel_right_behind_its_request_wins(world):
    world.send(failed("order-1").stream())
    request = replay("order-1", not_before=times.text(times.now() + 6_000_000))
    cancel = {"request_id": str(uuid.uuid4()), "command": "CANCEL", "saga_id": "order-1", "replay_id": replay_id(request["request_id"], "order-1"),
              "reason": "changed my mind", "requested_by": "ops"}
    for message in (request, cancel):
        world.log.send(world.requests, "order-1", message)
    world.log.flush()
    world.start()  # reads both at once
    key = cancel["replay_id"]
    wait_for("cancelled", lambda: log_records(world).get(key, {}).get("status") == "cancelled", 30)
    time.sleep(max(0, times.parse(request["not_before"]) - times.now()) / 1e6 + 2)
    assert log_records(world)[key]["status"] == "cancelled"
    assert not world.log.read(world.restored)


def test_a_waiting_dry_run_does_not_stand_in_for_the_real_run(world):
    world.start()
    world.send(failed("order-1").stream())
    request = replay("order-1")
    world.request({**request, "dry_run": True, "not_before": times.text(times.now() + 4_000_000)})
    key = replay_id(request["request_id"], "order-1")
    wait_for("the dry run waits", lambda: log_records(world).get(key, {}).get("status") == "accepted", 30)
    world.request(request)
    wait_for("the real run is published", lambda: log_records(world)[key]["status"] == "published", 30)
    time.sleep(5)  # the dry run's time comes
    assert log_records(world)[key]["status"] == "published"
    replayed_exactly_once(world, [request])


def test_of_two_requests_that_wait_the_first_goes(world):
    """Parked behind the saga's partition, which nobody materializes yet: timing must not decide who is refused."""
    world.send(failed("order-1").stream())
    replayer = world.start(roles="replay,api")
    first, second = replay("order-1"), replay("order-1")
    for request in (first, second):
        world.request(request)
    keys = [replay_id(r["request_id"], "order-1") for r in (first, second)]
    wait_for("both wait", lambda: [log_records(world).get(key, {}).get("status") for key in keys] == ["accepted"] * 2, 30)
    world.start(roles="materialize")
    known = await_log(world, keys)
    assert [(known[key]["status"], known[key]["code"]) for key in keys] == [("published", None), ("refused", "already_replayed")]
    assert replayer.is_running()
    replayed_exactly_once(world, [first])
