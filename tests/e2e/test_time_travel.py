"""Guarantees 3 and 5: state at T equals the naive fold, from hot, from cold, and after the Redis was wiped."""

import time

import generator
import times
from checks import archive_equals_log, dead_letters, fetch, newest_states_equal_model, random_points, states_equal_model
from model import answer
from resaga import quote
from servers.process import wait_for

POINTS = 10_000


def loaded(world, seed, count=250):
    """A world with random sagas, all of them durable: (process, model)."""
    process = world.start()
    world.send(generator.interleaved(seed, generator.sagas(seed, count)))
    world.await_caught_up()
    return process, world.judge()


def test_states_equal_the_model_from_hot_from_cold_and_after_flushall(make_world, private_redis, full):
    world = make_world({"redis": private_redis.url})
    process, model = loaded(world, seed=20_260_110)
    expected_dead = sorted((p["partition"], p["offset"], code) for saga in model.sagas.values() for p, code in saga.dead)
    assert sorted((p, o, code) for _, p, o, code, _ in dead_letters(world)) == expected_dead and expected_dead
    archive_equals_log(world, model)

    states_equal_model(process, model, POINTS, seed=1, source=["hot"])
    newest_states_equal_model(process, model)

    # A reader that has no hot store at all answers from cold alone.
    cold = world.start(roles="api", **{"hot.url": "memory://"})
    states_equal_model(cold, model, POINTS, seed=2, source=["cold"])
    assert cold.terminate()[0] == 0

    private_redis.ask("FLUSHALL")
    states_equal_model(process, model, POINTS if full else 3_000, seed=3)
    newest_states_equal_model(process, model)

    # It heals: what comes later is hot again, whole, and older entries are still there.
    grown = [saga_id for saga_id in sorted(model.sagas) if saga_id.startswith("order-")][:40]
    world.send((saga_id, {"event_id": f"after-flush-{saga_id}", "saga_id": saga_id, "saga_name": "order-processing", "kind": "STEP_STARTED",
                          "step": "healing", "context_patch": {"healed": True}}) for saga_id in grown)
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(process, model)
    states_equal_model(process, model, 2_000, seed=4)
    archive_equals_log(world, model)

    def healed():
        return all(fetch(process.port, f"/v1/sagas/{quote(saga_id)}")[1]["source"] in ("hot", "both") for saga_id in grown)
    wait_for("sagas with new entries are answered from hot again", healed, 30)


def test_answers_say_how_far_they_are_complete(world):
    process, model = loaded(world, seed=7, count=40)
    sent = max(e.record.timestamp for saga in model.sagas.values() for e in saga.entries)
    wait_for("complete through the newest record", lambda: all(
        times.parse(fetch(process.port, f"/v1/sagas/{quote(saga_id)}")[1]["complete_through"]) > sent for saga_id in model.sagas), 20)


def test_history_pages_hold_every_entry_in_order(world):
    process, model = loaded(world, seed=11, count=60)
    for saga_id, saga in model.sagas.items():
        got, cursor = [], None
        while True:
            page = process.get(f"/v1/sagas/{quote(saga_id)}/history", limit=7, after=cursor)
            assert page.status == 200, page
            got += page.body["entries"]
            cursor = page.body["next"]
            if cursor is None:
                break
            assert len(page.body["entries"]) == 7
        assert len(got) == len(saga.entries), saga_id
        for entry, found in zip(saga.entries, got, strict=True):
            event = entry.record.event
            expected = {**answer(saga, entry)["entry"], "step": event.get("step"), "step_index": event.get("step_index"), "attempt": event.get("attempt"),
                        "status": entry.state["status"], "snapshot": entry.snapshot, "anomalies": sorted(entry.anomalies)}
            found = {**found, "anomalies": sorted(found["anomalies"])}
            assert {name: found.get(name, "<missing>") for name in expected} == expected
        points = process.get(f"/v1/sagas/{quote(saga_id)}/checkpoints", limit=1_000).body["checkpoints"]
        assert [int(p["sequence"]) for p in points] == [e.sequence for e in reversed(saga.entries) if e.snapshot]


def test_a_state_can_be_asked_for_by_entry_and_by_time_but_not_both(world):
    process, model = loaded(world, seed=13, count=20)
    for saga_id, at in random_points(model, 200, seed=5):
        saga = model.sagas[saga_id]
        entry = saga.state_at(at) or saga.entries[0]
        got = process.state(saga_id, sequence=entry.sequence).body
        assert got["entry"] == answer(saga, entry)["entry"]
        assert got["context"] == entry.state["context"]
    saga_id, saga = next(iter(model.sagas.items()))
    beyond = process.state(saga_id, sequence=len(saga.entries) + 1)
    assert (beyond.status, beyond.code) == (404, "sequence_not_found")
    both = process.state(saga_id, sequence=1, at="2026-01-10T10:00:00Z")
    assert (both.status, both.code) == (400, "request_invalid")
    no_zone = process.state(saga_id, at="2026-01-10T10:00:00")
    assert (no_zone.status, no_zone.code) == (400, "invalid_time")
    unknown = process.state("never seen")
    assert (unknown.status, unknown.code) == (404, "saga_not_found")
    pointer = process.get(f"/v1/sagas/{quote(saga_id)}/context", pointer="/no/such/member")
    assert (pointer.status, pointer.code) == (404, "pointer_not_found")


def test_events_become_visible_within_a_second_or_so(world):
    process, model = loaded(world, seed=17, count=5)
    delays = []
    for number in range(20):
        began = time.monotonic()
        world.send([(f"fresh-{number}", {"event_id": "e", "saga_id": f"fresh-{number}", "saga_name": "n", "kind": "SAGA_STARTED"})])
        wait_for("the event is in an answer", lambda n=number: process.state(f"fresh-{n}").status == 200, 10, every=0.01)
        delays.append(time.monotonic() - began)
    assert sorted(delays)[10] < 2, delays
