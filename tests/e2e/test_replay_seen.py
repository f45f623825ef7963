"""What was seen before is known to have been, also where memory has dropped it and history stands still."""

import threading
import uuid

from confluent_kafka import TopicPartition

from checks import await_log, replayed_exactly_once
from jsontext import dumps
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for


def key_of(request):
    return replay_id(request["request_id"], request["saga_id"])


def count_of(world):
    return len(world.log.read(world.restored))


def test_a_request_seen_before_waits_while_nobody_can_tell(make_world):
    """The view of the log is full, and nobody materializes the log: its old records are neither in memory nor in history."""
    world = make_world(partitions=1, **{"replay.max_log_records": 2})
    sagas = [f"order-{number}" for number in range(6)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    other = f"other-log.{world.id}"
    world.log.create([other], world.partitions)
    world.topics.append(other)
    folds = world.launch(roles="materialize", **{"topics.log": other})  # the step events, and not the log
    process = world.start(roles="replay,api")
    requests = [replay(saga_id) for saga_id in sagas[:3]]
    for request in requests:
        world.request(request)
        await_log(world, [key_of(request)])
    # The first one's record has left the view.
    world.request(requests[0])
    new = replay(sagas[3], allow_repeat=True)
    world.request(new)
    answer = process.post("/v1/replays", dumps(requests[0]).encode())
    assert (answer.status, answer.code) == (503, "behind"), answer.body
    assert count_of(world) == 3, "nothing is executed twice, and nothing is called new that may not be"
    folds.stop()
    world.launch(roles="materialize")
    await_log(world, [key_of(new)])
    replayed_exactly_once(world, [*requests, new])
    assert process.post("/v1/replays", dumps(requests[0]).encode()).status == 202, "the same again for the same id"
    count = count_of(world)
    world.request(requests[1])
    last = replay(sagas[4])
    world.request(last)
    await_log(world, [key_of(last)])
    assert count_of(world) == count + 1


def test_requests_that_were_deleted_before_they_were_read_are_an_alarm(make_world):
    world = make_world(partitions=1)
    for saga_id in ("order-1", "order-2"):
        world.send(failed(saga_id).stream())
    process = world.start()
    first = replay("order-1")
    world.request(first)
    await_log(world, [key_of(first)])
    process.stop()
    world.request(replay("order-2"))
    _, end = world.log.ends(world.requests)[0]
    world.log.admin.delete_records([TopicPartition(world.requests, 0, end)])[TopicPartition(world.requests, 0)].result(30)
    process = world.start()
    alarm = f'resaga_partition_alarms{{code="offsets_gone",partition="0",topic="{world.requests}"}}'
    wait_for("the alarm", lambda: process.metrics().get(alarm) == 1, 20)
    later = replay("order-2")
    world.request(later)
    await_log(world, [key_of(later)])
    process.stop()
    assert alarm not in world.start().metrics()


def posts(*posted):
    """All at the same moment: (status, code) of each, in order."""
    answers, together = [None] * len(posted), threading.Barrier(len(posted))

    def post(number, process, request):
        together.wait()
        answer = process.post("/v1/replays", dumps(request).encode())
        answers[number] = (answer.status, answer.code, answer.headers.get("resaga-request-sha256"))
    threads = [threading.Thread(target=post, args=(number, *one)) for number, one in enumerate(posted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_two_bodies_under_one_id_one_counts_and_the_other_is_told(world):
    one, two = world.start(), world.start()
    pairs = [(f"order-{number}", one, (one, two)[number % 2]) for number in range(12)]
    for saga_id, *_ in pairs:
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    for saga_id, here, there in pairs:
        bodies = [replay(saga_id, request_id=str(uuid.uuid4()), override={"merge": {"payment_token": token}}) for token in ("a", "b")]
        bodies[1]["request_id"] = bodies[0]["request_id"]
        answers = posts((here, bodies[0]), (there, bodies[1]))
        assert sorted(answer[:2] for answer in answers) == [(202, None), (409, "id_taken")], answers
        won = next(answer[2] for answer in answers if answer[0] == 202)
        record = await_log(world, [key_of(bodies[0])])[key_of(bodies[0])]
        assert record["request_sha256"] == won
    assert count_of(world) == len(pairs)
    again = posts((one, bodies[0]), (two, bodies[0]))
    assert len({answer[0] for answer in again}) == 1, again


def test_replays_that_left_memory_still_count(make_world):
    world = make_world(partitions=1, **{"replay.max_log_records": 2})
    sagas = [f"order-{number}" for number in range(5)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    process = world.start()
    world.await_caught_up()
    requests = [replay(saga_id) for saga_id in sagas[:4]]
    for request in requests:
        world.request(request)
        await_log(world, [key_of(request)])
    again = process.post("/v1/replays", dumps(replay("order-0")).encode())
    assert (again.status, again.code) == (409, "already_replayed"), again.body
    on_the_topic = replay("order-0")
    world.request(on_the_topic)
    record = await_log(world, [key_of(on_the_topic)])[key_of(on_the_topic)]
    assert (record["status"], record["code"]) == ("refused", "already_replayed")
    children = process.get("/v1/sagas/order-0/lineage").body["children"]
    assert [child["replay_id"] for child in children] == [key_of(requests[0])]
    none = process.get("/v1/sagas", replay="none", status="failed", limit=100).body["sagas"]
    assert [saga["saga_id"] for saga in none] == [sagas[4]]
    listed = process.get("/v1/replays", saga_id="order-0").body["replays"]
    assert [record["replay_id"] for record in listed] == [key_of(on_the_topic), key_of(requests[0])]
    process.stop()
    restarted = world.start()
    children = restarted.get("/v1/sagas/order-0/lineage").body["children"]
    assert [child["replay_id"] for child in children] == [key_of(requests[0])]


def of_group(world, group):
    """Settings of a second installation on the same topics: another group, and stores of its own."""
    return {"kafka.group_id": f"{group}-{world.id}", "hot.url": f"{world.redis_url}?prefix={group}",
            "cold.url": f"s3://{world.servers['s3_bucket']}/{world.id}-{group}"}


def anothers(process):
    return [name for name, value in process.metrics().items() if "log_of_another_group" in name and value == 1]


def test_a_second_group_replays_nothing_until_the_log_is_handed_over(world):
    sagas = [f"order-{number}" for number in range(10)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    blue = world.start()
    requests = [replay(saga_id) for saga_id in sagas]
    for request in requests[:8]:
        world.request(request)
    await_log(world, [key_of(request) for request in requests[:8]])
    settings = of_group(world, "green")
    green = world.start(**settings)
    wait_for("an alarm for each partition", lambda: anothers(green), 30)
    world.request(requests[8])
    await_log(world, [key_of(requests[8])])
    replayed_exactly_once(world, requests[:9])
    assert not anothers(blue)
    doctor = world.run("doctor", **settings)
    assert doctor.returncode == 1 and "take-over-log" in doctor.stdout + doctor.stderr, doctor
    take_over = ("store", "take-over-log", "--reason", "INC-4412")
    assert world.run(*take_over, **settings).returncode == 9
    early = world.run(*take_over, "--yes", **settings)
    assert early.returncode == 2 and "members" in early.stderr, early
    blue.stop()
    wait_for("the log is handed over", lambda: world.run(*take_over, "--yes", **settings).returncode == 0, 30, every=0.5)
    assert world.run("doctor", **settings).returncode == 0
    green.stop()
    green = world.start(**settings)
    world.request(requests[9])
    await_log(world, [key_of(requests[9])])
    replayed_exactly_once(world, requests)
    assert not anothers(green)
    assert anothers(world.start()), "blue stops now"


def test_of_two_groups_that_begin_together_one_replays(world):
    sagas = [f"order-{number}" for number in range(16)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    world.launch()
    world.start(**of_group(world, "green"))
    requests = [replay(saga_id) for saga_id in sagas]
    for request in requests:
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()
    await_log(world, [key_of(request) for request in requests])
    later = [replay(saga_id, allow_repeat=True) for saga_id in sagas]
    for request in later:
        world.request(request)
    await_log(world, [key_of(request) for request in later])
    replayed_exactly_once(world, [*requests, *later])


def damage(world, saga_id):
    """Bends what Redis holds of a saga of the log; gives what puts it right."""
    key, = world.redis().keys(f"*:s:{saga_id}")
    before = world.redis().zrange(key, 0, -1, withscores=True)
    world.redis().zremrangebyrank(key, 0, -1)
    world.redis().zadd(key, {member[:-1] + bytes([member[-1] ^ 0x55]): score for member, score in before})

    def mend():
        world.redis().zremrangebyrank(key, 0, -1)
        world.redis().zadd(key, dict(before))
    return mend


def test_a_damaged_record_holds_up_its_own_request_and_its_sagas_replays_only(make_world):
    world = make_world(partitions=1, **{"replay.max_log_records": 2, "cold.flush_interval": "60s"})
    sagas = [f"order-{number}" for number in range(7)]
    for saga_id in sagas:
        world.send(failed(saga_id).stream())
    process = world.start()
    world.await_caught_up()
    requests = [replay(saga_id) for saga_id in sagas[:4]]
    for request in requests:
        world.request(request)
        await_log(world, [key_of(request)])
    wait_for("history has the log", lambda: process.get(f"/v1/replays/{key_of(requests[1])}").status == 200, 30)
    mends = [damage(world, f"resaga.replay\x1f{key_of(requests[0])}"), damage(world, f"resaga.replays\x1f{sagas[1]}")]
    repeated, new = replay(sagas[1]), replay(sagas[4])
    for request in (requests[0], repeated, new):
        world.request(request)
    await_log(world, [key_of(new)])
    alarm = f'resaga_partition_alarms{{code="log_unreadable",partition="0",topic="{world.replay_log}"}}'
    wait_for("the alarm", lambda: process.metrics().get(alarm) == 1, 20)
    assert "what history has of a replay cannot be read" in process.tail(200)
    later = replay(sagas[5])
    world.request(later)
    await_log(world, [key_of(later)])
    for mend in mends:
        mend()
    record = await_log(world, [key_of(repeated)], within=60)[key_of(repeated)]
    assert (record["status"], record["code"]) == ("refused", "already_replayed"), record
    wait_for("the alarm ends", lambda: alarm not in process.metrics(), 60)
    last = replay(sagas[6])
    world.request(last)
    await_log(world, [key_of(last)])
    replayed_exactly_once(world, [*requests, new, later, last])
