"""Timestamps that cannot be true, and times that are rare: what is recorded when."""

import times
from model import answer
from servers.process import wait_for

DAY = 86_400_000


def create_time_world(make_world):
    """Producers stamp the events themselves, and the broker takes what they say."""
    world = make_world()
    world.events = f"stamped.{world.id}"
    world.log.create([world.events], world.partitions, **{"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": (1 << 63) - 1})
    world.topics.append(world.events)
    world.settings["topics.events"] = world.events
    return world


def event(saga_id, number, kind="CONTEXT_UPDATED", **members):
    return {"event_id": f"{saga_id}/{number}", "saga_id": saga_id, "saga_name": "n", "kind": kind, **members}


def send(world, saga_id, stamp, number, **members):
    from jsontext import dumps
    producer = world.log.producer
    producer.produce(world.events, dumps(event(saga_id, number, **members)).encode(), saga_id.encode(), timestamp=stamp)
    world.log.flush()


def entries(process, saga_id, count):
    def there():
        got = process.get(f"/v1/sagas/{saga_id}/history", limit=100)
        return got.status == 200 and len(got.body["entries"]) == count and got.body["entries"]
    return wait_for(f"{count} entries of {saga_id}", there, 20)


def test_a_timestamp_that_cannot_be_true_freezes_no_saga_and_throws_no_time_away(make_world):
    world = create_time_world(make_world)
    process = world.start()
    now = times.now() // 1_000
    text = lambda millis: times.text(millis * 1_000)  # noqa: E731
    for saga_id, lie in (("far", now * 1_000), ("none", -1), ("seconds", now // 1_000), ("ahead", now + 3_000 * DAY)):
        send(world, saga_id, now, 1, kind="SAGA_STARTED", occurred_at=text(now))
        send(world, saga_id, lie, 2)
        send(world, saga_id, lie, 3, occurred_at=text(now + 1_000)) if saga_id != "ahead" else None
        send(world, saga_id, now + 2_000, 4, occurred_at=text(now + 2_000))
        got = entries(process, saga_id, 3 if saga_id == "ahead" else 4)
        assert [e["anomalies"] for e in got] == [[]] * len(got), (saga_id, got)
        effective = [times.parse(e["effective_time"]) // 1_000 - now for e in got]
        assert effective == ([0, 0, 2_000] if saga_id == "ahead" else [0, 0, 1_000, 2_000]), (saga_id, effective)
        assert all(abs(times.parse(e["recorded_time"]) // 1_000 - now) <= 2_000 for e in got), (saga_id, got)
    assert process.metrics()["resaga_events_time_doubted_total"] == 7
    world.await_caught_up(30)
    # The next owner goes on from what the segments kept.
    process.terminate()
    process = world.start()
    send(world, "far", now * 1_000, 5)
    last = entries(process, "far", 5)[-1]
    assert abs(times.parse(last["recorded_time"]) // 1_000 - now) <= 2_000 and last["anomalies"] == [], last


def test_a_leap_second_comes_after_what_happened_before_it(world):
    process = world.start()
    at = ["2016-12-31T23:59:59.5Z", "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"]
    world.send([("leap", event("leap", n, "CONTEXT_UPDATED" if n else "SAGA_STARTED", occurred_at=when, context={"n": n})) for n, when in enumerate(at)])
    saga = world.judge().sagas["leap"]
    process.await_event(world.judge(), "leap", 20)
    assert [e.anomalies for e in saga.entries] == [[], [], []]
    for n, when in enumerate(at):
        got = process.state("leap", at=when).body
        assert (got["context"], got["entry"]) == ({"n": str(n)}, answer(saga, saga.entries[n])["entry"])


def test_two_events_under_one_sequence_are_told_with_their_positions(world):
    process = world.start()
    for number, sequence in ((1, 1), (2, 2), (2, 2), (3, 2)):
        world.send([("twice", event("twice", number, "SAGA_STARTED" if number == 1 else "CONTEXT_UPDATED", sequence=sequence))])
    wait_for("it is counted", lambda: process.metrics()["resaga_events_sequence_conflicts_total"] == 1, 20)
    assert process.metrics()["resaga_events_duplicate_total"] == 2
    line = wait_for("a line says it", lambda: [line for line in process.tail(100).splitlines() if "have one sequence" in line], 10)[0]
    positions = [f"{world.events}[{m.partition()}]@{m.offset()}" for m in world.log.read(world.events)]
    assert positions[1] in line and positions[3] in line, (line, positions)
