"""Schemas that come late, or that nobody can be asked for: nothing ends, and only what needs them waits."""

import itertools
import json
import time

from test_partitions import home

from checks import dead_letters
from servers.process import wait_for

FIELDS = ["event_id", "saga_id", "saga_name", "kind"]
SCHEMA = json.dumps({"type": "record", "name": "Outer$Event", "fields": [
    {"name": "order-id", "type": "string", "default": None}, *[{"name": name, "type": "string"} for name in FIELDS], {"name": "context", "type": "bytes"}]})


def text(value):
    assert len(value) < 64
    return bytes([2 * len(value)]) + value.encode()


def avro(number, saga_id):
    values = ["order-1", f"{saga_id}/1", saga_id, "order-processing", "SAGA_STARTED", '{"amount":1.10}']
    return b"\x00" + number.to_bytes(4, "big") + b"".join(map(text, values))


def plain(saga_id):
    return saga_id, {"event_id": f"{saga_id}/1", "saga_id": saga_id, "saga_name": "order-processing", "kind": "SAGA_STARTED"}


def spread(world, process):
    """A saga in each partition has an answer: nothing holds them up."""
    names = [f"s-{len(world.log.read(world.events))}-{n}" for n in range(12)]
    world.send(map(plain, names))
    return names


def test_a_schema_that_is_registered_after_its_first_record_is_waited_for(make_world, registry):
    world = make_world(**{"registry.url": registry.url})
    process = world.start()
    world.log.send(world.events, "late", avro(77, "late"))
    world.log.flush()
    wait_for("the registry was asked", lambda: registry.asked.count("/schemas/ids/77") >= 2, 10)
    registry.schemas[77] = SCHEMA
    found = wait_for("the event is in an answer", lambda: (got := process.state("late")).status == 200 and got, 10)
    assert dict(found.body["context"]) == {"amount": "1.10"}
    assert dead_letters(world) == []


def test_one_record_with_a_schema_that_nobody_has_is_a_dead_letter_in_the_end(make_world, registry):
    world = make_world(**{"registry.url": registry.url})
    process = world.start()
    world.log.send(world.events, "stray", avro(99, "stray"))
    names = spread(world, process)
    wait_for("sagas of other partitions are answered meanwhile", lambda: sum(process.state(name).status == 200 for name in names) >= 6, 4)
    (_, _, _, code, letter), = wait_for("the dead letter", lambda: dead_letters(world), 15)
    assert code == "unknown_schema" and letter.value() == avro(99, "stray")
    wait_for("all sagas are answered", lambda: all(process.state(name).status == 200 for name in names), 15)


def test_a_registry_that_is_away_ends_no_process_and_holds_up_what_needs_it_alone(make_world, registry):
    world = make_world(**{"registry.url": registry.url})
    process = world.start()
    registry.stop()
    world.log.send(world.events, "stray", avro(99, "stray"))
    world.log.send(world.replay_log, "stray", avro(99, "stray"))
    world.log.send(world.requests, "stray", avro(99, "stray"))
    names = spread(world, process)
    wait_for("sagas of other partitions are answered", lambda: sum(process.state(name).status == 200 for name in names) >= 6, 15)
    wait_for("the log's view waits", lambda: "learn schema of a replay log record" in process.tail(500), 10)
    assert process.is_running() and process.get("/livez").status == 200
    registry.schemas[99] = SCHEMA
    registry.start()
    wait_for("the held up one, too", lambda: process.state("stray").status == 200, 20)
    wait_for("all sagas are answered", lambda: all(process.state(name).status == 200 for name in names), 15)
    assert process.is_running()


def test_a_request_whose_schema_nobody_can_be_asked_for_holds_up_its_own_partition_alone(make_world, registry):
    world = make_world(**{"registry.url": registry.url})
    process = world.start()
    registry.stop()
    world.log.send(world.requests, "stray", avro(99, "stray"))
    world.log.flush()
    for n in range(12):
        world.request({"request_id": f"r-{n}", "command": "REPLAY", "saga_id": f"s-{n}"})
    answered = lambda: len({message.key() for message in world.log.read(world.replay_log)})  # noqa: E731
    wait_for("requests of other partitions are refused", lambda: answered() >= 6, 20)
    registry.start()
    wait_for("all are", lambda: answered() == 12, 20)
    (topic, *_, code, letter), = wait_for("the stray is a dead letter", lambda: dead_letters(world), 20)
    assert (topic, code, letter.key()) == (world.requests, "invalid_request", b"stray")
    assert process.is_running()


def at_home(partition, partitions):
    """Names of sagas that belong there, or where the names tell: the first of them."""
    return (name for name in (f"s-{n}" for n in itertools.count()) if home(name, partitions) == partition)


MUCH = 24 * [{"pad": "x" * 500_000}]  # more than a consumer may hold (limits.max_intake_bytes, 8 MiB)


def test_what_waits_behind_an_unknown_schema_takes_no_room_from_others(make_world, registry):
    world = make_world(partitions=2, **{"registry.url": registry.url})
    process = world.start()
    registry.stop()
    world.log.send(world.events, "stray", avro(99, "stray"), partition=0)
    behind, beside = list(itertools.islice(at_home(0, 2), 24)), list(itertools.islice(at_home(1, 2), 24))
    world.send((name, {**plain(name)[1], "context": pad}) for name, pad in zip(behind, MUCH, strict=True))
    wait_for("it waits", lambda: "ask registry" in process.tail(500), 20)
    world.send((name, {**plain(name)[1], "context": pad}) for name, pad in zip(beside, MUCH, strict=True))
    wait_for("the other partition is folded to its end", lambda: process.state(beside[-1]).status == 200, 20)
    registry.schemas[99] = SCHEMA
    registry.start()
    wait_for("then the first, too", lambda: all(process.state(name).status == 200 for name in ["stray", *behind]), 30)
    world.await_caught_up()
    # Nothing was skipped where it was read again.
    assert sorted(offset for partition, offset in world.archive.rows(world.events) if partition == 0) == list(range(25))
    assert dead_letters(world) == []


def test_a_registry_that_takes_its_time_delays_nobody_who_does_not_need_it(make_world, registry):
    world = make_world(partitions=2, **{"registry.url": registry.url})
    process = world.start()
    registry.takes = 4.5
    for number in range(20):
        world.log.send(world.events, "stray", avro(1_000 + number, "stray"), partition=0)
    world.log.flush()
    wait_for("the registry is asked", lambda: any("/schemas/ids/10" in path for path in registry.asked), 10)
    took = []
    for name in itertools.islice(at_home(1, 2), 6):
        began = time.monotonic()
        world.send([plain(name)])
        wait_for("it is answered", lambda name=name: process.state(name).status == 200, 20)
        took.append(time.monotonic() - began)
    assert max(took) < 2, took


def test_requests_behind_one_whose_schema_is_not_known_take_no_room_from_others(make_world, registry):
    world = make_world(partitions=2, **{"registry.url": registry.url})
    process = world.start()
    registry.stop()
    world.log.send(world.requests, "stray", avro(99, "stray"), partition=0)
    behind, beside = list(itertools.islice(at_home(0, 2), 24)), list(itertools.islice(at_home(1, 2), 24))

    def ask(names):
        for name, pad in zip(names, MUCH, strict=False):
            world.request({"request_id": f"r-{name}", "command": "REPLAY", "saga_id": name, "context_override": pad})
    ask(behind)
    wait_for("it waits", lambda: "ask registry" in process.tail(500), 20)
    ask(beside)
    answered = lambda: {message.key() for message in world.log.read(world.replay_log)}  # noqa: E731
    wait_for("the other partition's are answered", lambda: len(answered()) == 24, 30)
    registry.start()
    wait_for("all are", lambda: len(answered()) == 48, 40)
    assert [letter[3] for letter in dead_letters(world)] == ["invalid_request"]


def test_a_record_of_the_log_whose_schema_is_not_known_holds_up_the_view_of_its_own_partition_alone(make_world, registry):
    world = make_world(partitions=2, **{"registry.url": registry.url})
    process = world.start()
    registry.stop()
    world.log.send(world.replay_log, "stray", avro(99, "stray"), partition=0)
    world.log.flush()
    wait_for("the view waits", lambda: "learn schema of a replay log record" in process.tail(500), 20)
    behind, beside = next(at_home(0, 2)), next(at_home(1, 2))
    for name in (behind, beside):
        world.request({"request_id": f"r-{name}", "command": "REPLAY", "saga_id": name})
    shown = lambda name: [one["request_id"] for one in process.get("/v1/replays", saga_id=name).body["replays"]]  # noqa: E731
    wait_for("the view goes on with the other", lambda: shown(beside) == [f"r-{beside}"], 20)
    assert shown(behind) == []
    registry.start()
    wait_for("and with both in the end", lambda: shown(behind) == [f"r-{behind}"], 30)
