"""Lost offsets: the partition stops, an operator accepts the loss, and history goes on with `log_gap`."""

import time

from confluent_kafka import TopicPartition

from sagas import Story
from servers.process import wait_for

KEPT, NEW = "kept", "new"


def begun(saga_id):
    return Story(saga_id).start().done("reserve_inventory")


def alarms(process):
    return [name for name, value in process.metrics().items() if name.startswith("resaga_partition_alarms") and value == 1]


def entries(process, saga_id):
    body = process.get(f"/v1/sagas/{saga_id}/history", limit=1000).body
    return [(int(str(e["sequence"])), e["kind"], e["anomalies"]) for e in body["entries"]]


def goes_on(world, story):
    """With one partition stopped until `accept-gap`, then folded on; `story` was begun before the loss."""
    stopped = world.start()
    wait_for("the partition is stopped", lambda: alarms(stopped), 30)
    before = stopped.state(story.saga_id)
    assert (before.status, before.body["anomalies"]) == (200, []), "what is durable is still answered"
    stopped.stop()
    assert world.run("doctor").returncode == 1
    unsure = world.run("store", "accept-gap", world.events, "0", "--reason", "INC-4412")
    assert unsure.returncode == 9, unsure.stderr
    done = world.run("store", "accept-gap", world.events, "0", "--reason", "INC-4412", "--yes")
    assert done.returncode == 0, done.stderr
    assert world.run("store", "accept-gap", world.events, "0", "--reason", "INC-4412", "--yes").returncode == 2, "no gap is left"
    assert world.run("doctor").returncode == 0
    process = world.start()
    world.await_caught_up()
    assert not alarms(process)
    check(process, len(story.events))
    # The same from the archive alone.
    world.redis().flushdb()
    process.stop()
    check(world.start(), len(story.events))


def check(process, count):
    """One entry after the loss for the old saga, a saga that began after it, nothing else."""
    found = entries(process, KEPT)
    assert [sequence for sequence, _, _ in found] == list(range(1, count + 1))
    assert [number for number, (_, _, anomalies) in enumerate(found, 1) if "log_gap" in anomalies] == [count]
    state = process.state(KEPT).body
    assert (state["status"], state["completed_steps"]) == ("completed", ["reserve_inventory"])
    assert "log_gap" in state["anomalies"]
    assert process.state(NEW).body["anomalies"] == []


def test_offsets_deleted_before_they_were_durable(make_world):
    world = make_world(partitions=1)
    story = begun(KEPT)
    process = world.start()
    world.send(story.stream())
    world.await_caught_up()
    process.stop()
    world.send(Story("lost").start().stream())
    _, end = world.log.ends(world.events)[0]
    world.log.admin.delete_records([TopicPartition(world.events, 0, end)])[TopicPartition(world.events, 0)].result(30)
    world.send(story.event("SAGA_COMPLETED").stream()[-1:])
    world.send(begun(NEW).stream())
    goes_on(world, story)


def test_a_topic_that_was_deleted_and_created_again(make_world):
    world = make_world(partitions=1)
    story = begun(KEPT)
    process = world.start()
    world.send(story.stream())
    world.await_caught_up()
    process.stop()
    world.log.delete([world.events])
    wait_for("the topic is gone", lambda: world.events not in world.log.admin.list_topics(timeout=10).topics, 30)
    time.sleep(1)
    world.log.create([world.events], 1)
    world.send(story.event("SAGA_COMPLETED").stream()[-1:])
    world.send(begun(NEW).stream())
    goes_on(world, story)
