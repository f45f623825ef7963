"""Partitions that are not as they should be: strays, a raised count, one without a leader."""

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

import times
from checks import archive_equals_log, await_log, log_records, newest_states_equal_model, replayed_exactly_once
from jsontext import dumps
from log import Log
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for


def home(key, partitions):
    """Java's DefaultPartitioner: murmur2 of the key, positive, modulo the partition count."""
    data, mix, word = key.encode(), 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at:at + 4], "little") * mix & word
        value = (value * mix & word) ^ ((k ^ k >> 24) * mix & word)
    if data[whole:]:
        value = (value ^ int.from_bytes(data[whole:], "little")) * mix & word
    value = (value ^ value >> 13) * mix & word
    return ((value ^ value >> 15) & 0x7FFFFFFF) % partitions


def keys(requests):
    return [replay_id(request["request_id"], request["saga_id"]) for request in requests]


def ask(world, sagas):
    requests = [replay(saga_id) for saga_id in sagas]
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()
    return requests


def test_an_event_in_another_partition_than_its_keys_stops_no_replay(world):
    process = world.start()
    sagas = [f"order-{number}" for number in range(30)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    stray, = failed("stray").start().events[:1]
    world.log.send(world.events, "stray", stray, partition=(home("stray", world.partitions) + 1) % world.partitions)
    world.log.flush()
    world.await_caught_up()
    requests = ask(world, sagas[:10])
    await_log(world, keys(requests), within=30)
    replayed_exactly_once(world, requests)
    assert process.metrics()[f'resaga_events_misplaced_total{{topic="{world.events}"}}'] == 1
    assert "step event in another partition than its key's" in process.tail(200)
    check = world.run("doctor", "-o", "jsonl").stdout
    assert "murmur2 explains the newest keys but for a few of" in check, check


def test_requests_are_sent_on_once_when_the_partition_count_is_raised(make_world):
    """Under a process that runs; a second one joins, as in a rolling restart."""
    world = make_world(partitions=2, **{"kafka.properties.topic_metadata_refresh_interval_ms": 1_000})
    world.start()
    sagas = [f"order-{number}" for number in range(40)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    first = ask(world, sagas[:20])
    await_log(world, keys(first))
    for topic in (world.requests, world.replay_log):
        world.log.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    world.start()
    # Half of them by a producer that has not heard of it.
    second = [replay(saga_id) for saga_id in sagas[20:]]
    wait_for("the new partitions", lambda: len(world.log.ends(world.requests)) == 5, 30)
    fresh = Log(world.servers["kafka"])
    for number, request in enumerate(second):
        partition = home(request["saga_id"], 2) if number % 2 else home(request["saga_id"], 5)
        fresh.send(world.requests, request["saga_id"], request, partition=partition)
    fresh.flush()
    await_log(world, keys(second), within=60)
    replayed_exactly_once(world, [*first, *second])
    asked = [m for m in world.log.read(world.requests) if b"OUTCOME" not in m.value()]
    assert len(asked) <= 40 + 20, f"{len(asked)} records for 40 requests"


def leaderless(world, topic):
    partitions = world.log.admin.list_topics(topic, timeout=10).topics[topic].partitions
    return {number for number, partition in partitions.items() if partition.leader < 0}


def make_internal_topics(kafka):
    """Offsets and transactions, while there is no other broker that could get some of their partitions."""
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": "first"})
    producer.init_transactions(30)
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "first"})
    wait_for("the group's coordinator", lambda: consumer.committed([TopicPartition("none", 0)], 10), 30)
    consumer.close()


def test_a_partition_without_a_leader_stops_only_itself(make_kafka, make_world):
    first = make_kafka()
    make_internal_topics(first)
    world = make_world({"kafka": first.address})
    second = make_kafka(joins=first)
    world.events += ".two"
    world.topics.append(world.events)
    world.settings["topics.events"] = world.events
    wanted = NewTopic(world.events, 4, replica_assignment=[[1], [1], [1], [2]], config={"message.timestamp.type": "LogAppendTime"})
    world.log.admin.create_topics([wanted])[world.events].result(30)
    process = world.start()
    sagas = [f"order-{number}" for number in range(60)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    second.kill()
    wait_for("no leader", lambda: leaderless(world, world.events) == {3}, 30)

    healthy = [saga_id for saga_id in sagas if home(saga_id, 4) != 3]
    requests = ask(world, healthy[:20])

    def can_go(request):
        """Where its restored saga's first event goes."""
        return home(plan_id(request), 4) != 3

    def plan_id(request):
        known = log_records(world)[replay_id(request["request_id"], request["saga_id"])]
        return known["new_saga_id"]

    def through():
        return times.parse(process.state(healthy[0]).body["complete_through"])
    wait_for("all are in the log", lambda: set(keys(requests)) <= set(log_records(world)), 40)
    going = [request for request in requests if can_go(request)]
    assert len(going) < len(requests), "none would go to the partition that is gone"
    await_log(world, keys(going), within=40)
    before = times.now()
    wait_for("complete_through moves", lambda: through() > before, 20)

    process.terminate()
    process = world.start()
    more = ask(world, healthy[20:40])
    wait_for("more are in the log", lambda: set(keys(more)) <= set(log_records(world)), 60)
    await_log(world, keys([request for request in more if can_go(request)]), within=40)
    waiting = ask(world, [saga_id for saga_id in sagas if home(saga_id, 4) == 3][:3])

    second.start()
    await_log(world, keys([*requests, *more, *waiting]), within=60)
    replayed_exactly_once(world, [*requests, *more, *waiting])
    world.await_caught_up()
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(process, model)


def test_a_request_of_before_the_count_was_raised_is_not_new(make_world):
    """Its record is in the partition that its saga had, and has left memory; so has that of what it restored."""
    world = make_world(partitions=2, **{"kafka.properties.topic_metadata_refresh_interval_ms": 1_000, "replay.max_log_records": 2})
    process = world.start()
    sagas = [f"order-{number}" for number in range(40) if home(f"order-{number}", 5) > 1][:6]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    first = ask(world, sagas[:3])
    await_log(world, keys(first))
    for topic in (world.requests, world.replay_log):
        world.log.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    wait_for("the new partitions", lambda: len(world.log.ends(world.requests)) == 5, 30)
    fresh = Log(world.servers["kafka"])
    # Others push the first ones' records out of memory.
    second = [replay(saga_id) for saga_id in sagas[3:]]
    for request in second:
        fresh.send(world.requests, request["saga_id"], request, partition=home(request["saga_id"], 5))
    fresh.flush()
    await_log(world, keys(second), within=60)
    later = replay(sagas[0])
    for request in (*first, later):
        fresh.send(world.requests, request["saga_id"], request, partition=home(request["saga_id"], 5))
    fresh.flush()
    record = await_log(world, keys([later]), within=60)[keys([later])[0]]
    assert (record["status"], record["code"]) == ("refused", "already_replayed"), record
    replayed_exactly_once(world, [*first, *second])
    process.kill()
    process = world.start()
    last = replay(sagas[1], allow_repeat=True)
    for request in (*first, last):
        fresh.send(world.requests, request["saga_id"], request, partition=home(request["saga_id"], 5))
    fresh.flush()
    await_log(world, keys([last]), within=60)
    replayed_exactly_once(world, [*first, *second, last])
    answer = process.post("/v1/replays", dumps(first[0]).encode())
    assert answer.status == 202, answer.body
