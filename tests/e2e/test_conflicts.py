"""One saga's events in two partitions: one answer everywhere, said aloud, and never replayed from half of it."""

import pytest

from jsontext import dumps
from sagas import Story
from servers.process import wait_for

CONFLICT = "partition_conflict"
METRIC = "resaga_saga_partition_conflicts_total"


@pytest.mark.parametrize("partitioner", ["murmur2", "auto"])
def test_a_saga_in_two_partitions_has_one_history_is_told_and_is_not_replayed(make_world, partitioner):
    # Two processes: each owns some partitions, and each must give the same answer.
    world = make_world(**{"cold.flush_interval": "300ms", "topics.partitioner": partitioner})
    processes = [world.start(), world.start()]
    world.send(event for n in range(40) for event in Story(f"whole-{n}").start().done("reserve_inventory").stream())
    story = Story("order-1").start().done("reserve_inventory").broken("charge_payment").event("SAGA_FAILED", "charge_payment")
    world.log.send(world.events, "order-1", story.events[0])
    world.log.flush()
    homes = {message.key(): message.partition() for message in world.log.read(world.events)}
    home = homes[b"order-1"]
    other = (home + 1) % world.partitions
    # In turn, as two producers with two partitioners do.
    for number, event in enumerate(story.events[1:]):
        world.log.send(world.events, "order-1", event, partition=home if number % 2 else other)
    world.log.flush()
    world.await_caught_up()
    own = 1 + sum(1 for number in range(len(story.events) - 1) if number % 2)

    def answers():
        got = [process.state("order-1") for process in processes]
        assert all(answer.status == 200 for answer in got), got
        states = [(int(str(answer.body["entry"]["position"]["partition"])), int(str(answer.body["entry"]["sequence"])), answer.body["status"],
                   CONFLICT in answer.body["anomalies"]) for answer in got]
        histories = [process.get("/v1/sagas/order-1/history", limit=100).body["entries"] for process in processes]
        assert histories[0] == histories[1]
        assert [int(str(entry["sequence"])) for entry in histories[0]] == list(range(1, own + 1))
        assert {int(str(entry["position"]["partition"])) for entry in histories[0]} == {home}
        return states

    hot = answers()
    assert hot[0] == hot[1] and hot[0][:2] == (home, own) and hot[0][3], hot
    assert answers() == hot
    wait_for("the metric", lambda: sum(process.metrics()[METRIC] for process in processes) >= 1, 30)
    looked = world.run("doctor")
    assert 'saga "order-1"' in looked.stdout.replace("\\", ""), looked.stdout
    request = {"command": "REPLAY", "saga_id": "order-1", "from": {"start": True}, "allow_running": True, "reason": "test", "requested_by": "ops"}
    for process in processes:
        posted = process.post("/v1/replays", dumps(request))
        assert (posted.status, posted.code) == (403, "not_permitted"), posted
    world.request({**request, "request_id": "r-split"})

    def refused():
        found = processes[0].get("/v1/replays", request_id="r-split").body["replays"]
        return found and (found[0]["status"], found[0]["code"]) == ("refused", "not_permitted")
    wait_for("the request on the topic is refused", refused, 30)
    # A saga that is whole is replayed all the same.
    assert processes[0].post("/v1/replays", dumps({**request, "saga_id": "whole-1"})).status == 202
    world.redis().flushdb()
    # That there is more elsewhere cold tells as soon as hot says that it was wiped.
    wait_for("the same from cold", lambda: answers() == hot, 15)
