"""Processes join and leave one group while events and requests flow: nothing lost or twice, work is spread, partitions keep moving."""

import generator
from checks import archive_equals_log, await_log, newest_states_equal_model, replayed_exactly_once
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for


def test_one_then_three_then_two_processes(make_world, full):
    world = make_world(partitions=6)
    ids = [f"order-{number}" for number in range(500 if full else 150)]
    for saga_id in ids:
        for event in failed(saga_id).events:
            world.log.send(world.events, saga_id, event)
    stream = list(generator.interleaved(41, generator.sagas(41, 4_300 if full else 850, prefix="w-")))
    requests = [replay(saga_id) for saga_id in ids]
    sixth, portion = len(requests) // 6 + 1, len(stream) // 6 + 1

    def flow(number):
        for request in requests[number * sixth:(number + 1) * sixth]:
            world.log.send(world.requests, request["saga_id"], request)
        world.send(stream[number * portion:(number + 1) * portion])

    # Dynamic members: librdkafka keeps a static one in the group until its session ends, also when it stops cleanly.
    dynamic = {"kafka.instance": ""}
    one = world.start("one", **dynamic)
    flow(0)
    two, three = world.launch("two", **dynamic), world.launch("three", **dynamic)
    flow(1)
    two.await_ready()
    three.await_ready()
    flow(2)
    world.await_caught_up(within=90)
    owned = owners(world)
    assert sorted(owned) == [2, 2, 2], f"partitions of events by member: {owned}"
    flow(3)
    world.await_caught_up(within=90)
    assert two.terminate()[0] == 0, two.tail()
    # Its partitions make progress elsewhere within five seconds.
    moved = [f"moved-{number}" for number in range(30)]
    world.send((saga_id, {"event_id": "1", "saga_id": saga_id, "saga_name": "n", "kind": "SAGA_STARTED"}) for saga_id in moved)
    wait_for("moved partitions make progress", lambda: all(one.state(saga_id).status == 200 for saga_id in moved), 5, every=0.05)
    flow(4)
    flow(5)
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests], within=120)
    world.await_caught_up(within=120)
    assert sorted(owners(world)) == [3, 3]
    replayed_exactly_once(world, requests)
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(one, model)
    newest_states_equal_model(three, model)


def owners(world):
    """How many partitions of the events topic each member of the group has, as the broker knows it."""
    return list(world.log.assignment(f"{world.settings['kafka.group_id']}-materialize", world.events).values())
