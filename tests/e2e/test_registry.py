"""Schemas that come late, or that nobody can be asked for: nothing ends, and only what needs them waits."""

import json

import pytest

from checks import dead_letters
from registry_stub import RegistryStub
from servers.process import wait_for

FIELDS = ["event_id", "saga_id", "saga_name", "kind"]
SCHEMA = json.dumps({"type": "record", "name": "Outer$Event", "fields": [
    {"name": "order-id", "type": "string", "default": None}, *[{"name": name, "type": "string"} for name in FIELDS], {"name": "context", "type": "bytes"}]})


@pytest.fixture
def registry():
    stub = RegistryStub().start()
    yield stub
    stub.stop()


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
