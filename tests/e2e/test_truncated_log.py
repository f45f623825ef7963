"""An unclean election under a running owner: what it folded of the lost tail never becomes durable (guarantees 2 and 5)."""

import os
import time

import pytest
from test_registry import avro

from checks import archive_equals_log, newest_states_equal_model
from log import Log
from sagas import Story, completed
from servers.process import wait_for


@pytest.mark.parametrize("rests", [False, True], ids=["reading", "resting"])
def test_the_folded_part_of_a_lost_tail_is_not_made_durable(private_kafka, make_world, registry, rests):
    """`rests`: the partition is not read while the tail is lost, and the log is longer than before when it is read again."""
    broker = private_kafka
    world = make_world({"kafka": broker.address}, partitions=1, **{"registry.url": registry.url})
    segment = broker.directory / "data" / f"{world.events}-0" / "00000000000000000000.log"
    owner = world.start(**{"cold.flush_interval": "300ms"})
    world.send(completed("kept").stream())
    world.await_caught_up()
    owner.stop()
    kept = os.stat(segment).st_size
    _, end = world.log.ends(world.events)[0]

    # Folded, in Redis, and not in S3 for long.
    # The session outlives the restart of the broker.
    owner = world.start(**{"cold.flush_interval": "10m", "kafka.properties.session_timeout_ms": 60_000})
    lost = Story("lost").start().done("reserve_inventory")
    world.send(lost.stream())
    wait_for("folded", lambda: owner.state("lost").status == 200, 30)
    if rests:
        registry.stop()
        world.log.send(world.events, "stray", avro(99, "stray"))
        world.log.flush()
        wait_for("it waits", lambda: "ask registry" in owner.tail(500), 20)
        time.sleep(1)  # by then it is let go of
        owner.pause()  # nor is it seen that the log is shorter meanwhile
    _, before = world.log.ends(world.events)[0]
    broker.kill()
    os.truncate(segment, kept)
    broker.start()
    wait_for("the tail is lost", lambda: world.log.ends(world.events)[0][1] == end, 60)
    # The log goes on otherwise. A producer that knew the lost tail does not.
    world.log = Log(broker.address)
    if rests:
        world.send(completed("new").stream())
        wait_for("a longer log", lambda: world.log.ends(world.events)[0][1] > before, 60)
        owner.resume()
        registry.start()

    def alarm():
        return [name for name, value in owner.metrics().items() if name.startswith("resaga_partition_alarms") and "offsets_replaced" in name and value]
    wait_for("the partition stops", alarm, 60)
    owner.stop()
    assert all(offset < end for _, offset in world.archive.rows(world.events)), "the lost tail is in the archive"

    # And so does the archive.
    if not rests:
        world.send(completed("new").stream())
    owner = world.start(**{"cold.flush_interval": "300ms"})
    world.await_caught_up()
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(owner, model)
    assert owner.state("lost").status == 404
