"""Requests that cannot go: they wait, are refused or are cut, and what can go goes past them."""

import uuid

from confluent_kafka import Producer, TopicPartition

import times
from checks import await_log, dead_letters, log_records, replayed_exactly_once
from jsontext import dumps
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for

SECOND = 1_000_000


def in_seconds(seconds):
    return times.text(times.now() + int(seconds * SECOND))


def key_of(request):
    return replay_id(request["request_id"], request["saga_id"])


def cancel(request):
    return {"request_id": str(uuid.uuid4()), "command": "CANCEL", "saga_id": request["saga_id"], "replay_id": key_of(request),
            "reason": "changed my mind", "requested_by": "ops"}


def await_status(world, wanted, within=30):
    def there():
        known = log_records(world)
        found = {key: known.get(key, {}).get("status") for key in wanted}
        assert found == wanted, {key: (found[key], status) for key, status in wanted.items() if found[key] != status}
        return known
    return wait_for("the log as wanted", there, within, every=0.3)


def test_requests_that_wait_keep_nobody_else_out(make_world):
    """Room for three that wait; five do, and one more of them soon."""
    world = make_world(partitions=1, **{"replay.max_parked_requests": 3})
    process = world.start()
    for number in range(9):
        world.send(failed(f"order-{number}").stream())
    world.await_caught_up()
    later = in_seconds(3_600)
    waiting = [replay(f"order-{number}", not_before=later) for number in range(5)]
    soon, now = replay("order-5", not_before=in_seconds(4)), replay("order-6")
    for request in waiting[:3]:
        world.request(request)
    await_status(world, {key_of(request): "accepted" for request in waiting[:3]})
    for request in (*waiting[3:], soon, cancel(waiting[0]), cancel(waiting[4]), now):
        world.request(request)
    wanted = {key_of(waiting[0]): "cancelled", key_of(waiting[4]): "cancelled", key_of(now): "published", key_of(soon): "published"}
    await_status(world, wanted)
    # There is room again for those that stayed in the topic.
    await_status(world, {**wanted, **{key_of(request): "accepted" for request in waiting[1:4]}})
    process.kill()
    world.start()
    last = replay("order-7")
    world.request(last)
    for request in waiting[1:4]:
        world.request(cancel(request))
    await_status(world, {key_of(last): "published", **{key_of(request): "cancelled" for request in waiting[1:4]}})
    replayed_exactly_once(world, [soon, now, last])


def test_with_a_rate_only_those_that_may_go_are_read(private_redis, make_world):
    world = make_world(redis_url=private_redis.url)
    process = world.start(**{"replay.rate": "1/s"})
    sagas = [f"order-{number}" for number in range(200)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    requests = [replay(saga_id) for saga_id in sagas]
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()
    keys = {key_of(request) for request in requests}
    wait_for("all are taken up", lambda: keys <= set(log_records(world)), 30)

    def reads():
        return world.redis().info("commandstats")["cmdstat_zrevrangebyscore"]["calls"]

    def published():
        return process.metrics().get('resaga_replay_requests_total{result="published",saga_name="order-processing",via="topic"}', 0)
    first, before = published(), reads()
    wait_for("four more", lambda: published() >= first + 4, 20)
    assert reads() - before < 100, f"{reads() - before} histories read for four replays"


def test_what_no_topic_takes_is_cut_and_holds_nothing_up(world):
    """Small on the wire, far larger than our producer or a topic takes once unpacked."""
    process = world.start()
    for saga_id in ("order-1", "order-2", "order-3"):
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    large = "a" * (70 << 20)
    producer = Producer({"bootstrap.servers": world.servers["kafka"], "compression.type": "zstd", "partitioner": "murmur2_random",
                         "message.max.bytes": 200 << 20, "queue.buffering.max.kbytes": 1 << 20})
    refused = replay("order-1", reason=large)
    producer.produce(world.requests, large.encode(), b"order-2")
    producer.produce(world.requests, dumps(refused).encode(), b"order-1")
    assert producer.flush(60) == 0
    asked = [replay(saga_id) for saga_id in ("order-2", "order-3")]
    for request in asked:
        world.request(request)
    known = await_log(world, [key_of(request) for request in (refused, *asked)], within=60)
    record = known[key_of(refused)]
    assert (record["status"], record["code"]) == ("refused", "too_large"), record["code"]
    assert len(record["reason"]) < 1_000 and str(len(dumps(refused))) in record["message"] and record["request_sha256"] in record["message"]
    replayed_exactly_once(world, asked)
    wait_for("the dead letter", lambda: dead_letters(world), 30)
    (topic, _, _, code, letter), = dead_letters(world)
    headers = dict(letter.headers())
    assert (topic, code, headers["resaga-cut"]) == (world.requests, "invalid_request", b"value")
    assert int(headers["resaga-full-size"]) > 70 << 20 and len(letter.value()) < 1 << 20
    assert process.get("/readyz").status == 200


def test_requests_that_were_passed_over_and_are_deleted_stop_nobody(make_world):
    """Room for two that wait; what stays in the topic is deleted under the running process."""
    world = make_world(partitions=1, **{"replay.max_parked_requests": 2})
    process = world.start()
    for number in range(9):
        world.send(failed(f"order-{number}").stream())
    world.await_caught_up()
    later = in_seconds(3_600)
    waiting = [replay(f"order-{number}", not_before=later) for number in range(6)]
    now = replay("order-6")
    for request in (*waiting, now):
        world.request(request)
    await_status(world, {**{key_of(request): "accepted" for request in waiting[:2]}, key_of(now): "published"})
    _, end = world.log.ends(world.requests)[0]
    world.log.admin.delete_records([TopicPartition(world.requests, 0, end)])[TopicPartition(world.requests, 0)].result(30)
    # There is room: they are to be read again, and are gone.
    world.request(cancel(waiting[0]))
    alarm = f'resaga_partition_alarms{{code="offsets_gone",partition="0",topic="{world.requests}"}}'
    wait_for("the alarm", lambda: process.metrics().get(alarm) == 1, 30)
    last = replay("order-7")
    world.request(last)
    await_status(world, {key_of(waiting[0]): "cancelled", key_of(waiting[1]): "accepted", key_of(last): "published"})
    assert process.metrics().get(alarm) == 1, "what was lost is not forgotten"
    lost = process.post(f"/v1/replays/{key_of(waiting[5])}/cancel", b'{"requested_by":"ops","reason":"x"}')
    assert (lost.status, lost.code) == (404, "replay_not_found") and "CANCEL record" in lost.body["detail"], lost.body
    replayed_exactly_once(world, [now, last])


def test_a_request_that_waits_is_carried_out_though_the_log_has_dropped_it(make_world):
    world = make_world(partitions=1)
    process = world.start()
    for number in range(3):
        world.send(failed(f"order-{number}").stream())
    world.await_caught_up()
    soon, done = replay("order-0", not_before=in_seconds(25)), replay("order-1")
    world.request(soon)
    world.request(done)
    await_status(world, {key_of(soon): "accepted", key_of(done): "published"})
    world.await_caught_up()
    process.stop()
    _, end = world.log.ends(world.replay_log)[0]
    # The last is a commit marker, which no chain covers.
    world.log.admin.delete_records([TopicPartition(world.replay_log, 0, end - 1)])[TopicPartition(world.replay_log, 0)].result(30)
    process = world.start()
    wait_for("it is known again", lambda: process.get(f"/v1/replays/{key_of(soon)}").body["status"] == "accepted", 20)
    await_status(world, {key_of(soon): "published"}, within=60)
    again = replay("order-2")
    for request in (soon, done, again):
        world.request(request)
    await_status(world, {key_of(again): "published"})
    restored = [message.key().decode() for message in world.log.read(world.restored)]
    assert len(restored) == len(set(restored)) == 3, restored
