"""The broker is killed, or stops answering, in the middle of transactions and comes back: nothing lost, nothing twice."""

import random
import time

import generator
import times
from checks import archive_equals_log, await_log, newest_states_equal_model, replayed_exactly_once
from jsontext import dumps
from plan import replay_id
from sagas import failed, replay


def orders(world, count):
    ids = [f"order-{number}" for number in range(count)]
    for saga_id in ids:
        for event in failed(saga_id).events:
            world.log.send(world.events, saga_id, event)
    world.log.flush()
    return [replay(saga_id) for saga_id in ids]


def ask(world, requests):
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)


def nothing_lost_nothing_twice(world, process, requests):
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests], within=120)
    world.await_caught_up(within=120)
    replayed_exactly_once(world, requests)
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(process, model)


def lost_by_the_broker(world):
    """Partitions that hold a transaction open for ever. With every producer gone a coordinator ends what it knows of
    within the transactions' time-out (15 s) and its own look-around (10 s): what is open after that it has forgotten."""
    for process in world.processes:
        if process.is_running():
            process.kill()
    time.sleep(40)
    hanging = []
    for topic in (world.events, world.restored, world.replay_log):
        ends, stable = world.log.ends(topic), world.log.stable_ends(topic)
        hanging += [f"{topic}/{partition}: {stable[partition]} of {end}" for partition, (_, end) in ends.items() if stable[partition] < end]
    return hanging


def test_a_broker_killed_in_the_middle_of_transactions(make_kafka, make_world):
    """resaga stands still while the broker is killed. A broker of version 4.4.0 that is killed after it recorded a commit
    and before it wrote the markers may never write them after its start (seen in its log files: the transaction is
    complete, its partitions have no marker): then the transaction hangs for every client, until an operator ends it.
    That is not resaga's to mend: such a broker is told by what it does when resaga is gone, and another is taken."""
    for another in (True, True, False):
        kafka = make_kafka()
        world = make_world({"kafka": kafka.address}, partitions=2)
        try:
            return broker_killed(kafka, world)
        except (AssertionError, TimeoutError):
            print("\n".join(world.evidence()))
            hanging = lost_by_the_broker(world)
            print(f"the broker lost transactions: {hanging}")
            if not (hanging and another):
                raise


def broker_killed(kafka, world):
    requests = orders(world, 150)
    # Small batches: one is committed while the next is decided.
    process = world.start(**{"replay.max_batch_requests": 10})
    world.await_caught_up()
    stream = list(generator.interleaved(31, generator.sagas(31, 60, prefix="w-")))
    moments = random.Random(7)
    for turn in range(3):
        ask(world, requests[turn * 50:(turn + 1) * 50])
        world.log.producer.flush(moments.random() * 0.3)
        process.pause()
        time.sleep(1)  # what the broker was asked for is done
        kafka.kill()
        kafka.start()
        process.resume()
        world.send(stream[turn * 300:(turn + 1) * 300])
    nothing_lost_nothing_twice(world, process, requests)


def test_a_broker_that_does_not_answer_for_longer_than_a_commit_waits(private_kafka, make_world):
    world = make_world({"kafka": private_kafka.address}, partitions=2)
    requests = orders(world, 150)
    process = world.start()
    world.await_caught_up()
    # A trickle, so that a transaction is always under way; the outcome of one that is being committed is unknown.
    for request in requests[:75]:
        ask(world, [request])
        world.log.producer.flush(0.01)
    private_kafka.pause()
    time.sleep(35)
    private_kafka.resume()
    ask(world, requests[75:])
    world.log.flush()
    nothing_lost_nothing_twice(world, process, requests)


def test_a_cluster_that_names_no_broker_for_a_moment(make_kafka, make_world):
    """A broker that was frozen is fenced when it goes on, until its next heartbeat: it answers, and answers name no broker.
    librdkafka then drops all it knows, for good."""
    kafka = make_kafka(**{"broker.session.timeout.ms": 4000, "broker.heartbeat.interval.ms": 3900})
    world = make_world({"kafka": kafka.address}, partitions=2)
    requests = orders(world, 2)
    process = world.start()
    world.await_caught_up()
    for request in requests:
        kafka.pause()
        time.sleep(5)
        kafka.resume()
        ask(world, [request])
        world.log.flush()
        await_log(world, [replay_id(request["request_id"], request["saga_id"])], within=60)
    nothing_lost_nothing_twice(world, process, requests)


def test_brokers_that_are_gone_cost_nothing_and_are_told_in_time(private_kafka, make_world):
    world = make_world({"kafka": private_kafka.address}, partitions=2)
    process = world.start()
    world.send(failed("order-1").stream())
    world.await_caught_up()
    private_kafka.kill()
    try:
        gone(process, times.now())
    finally:
        private_kafka.start()


def gone(process, killed):
    lines, seconds, cpu = len(process.tail(100_000).splitlines()), time.monotonic(), process.cpu_seconds()
    answer = process.post("/v1/replays", dumps(replay("order-1")))
    took = time.monotonic() - seconds
    assert (answer.status, answer.code) == (503, "unavailable") and took < 12, (answer, took)
    # librdkafka answers for a leader that is silent with offset -1001 and no error: no end, and nothing is read to it.
    state = process.state("order-1")
    assert state.status == 200 and times.parse(state.body["complete_through"]) < killed, "reads need no broker, and say how far they are"
    # librdkafka connected again and again without a pause: 80 % of a core, until the broker was back.
    time.sleep(max(0, 6 - took))
    span = time.monotonic() - seconds
    busy, said = (process.cpu_seconds() - cpu) / span, process.tail(100_000).splitlines()[lines:]
    assert busy < 0.3, f"{busy:.2f} of a core with no broker"
    assert len(said) < 60, f"{len(said)} lines in {span:.0f} s:\n" + "\n".join(said[-40:])
    assert not [line for line in said if "0/" in line and "brokers are down" in line]
