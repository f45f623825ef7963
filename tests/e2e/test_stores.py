"""Redis and S3 down, slow, wiped, full, read-only: no loss, no wrong answer, and progress resumes by itself."""

import random
import signal
import time

import generator
from checks import archive_equals_log, fetch, never_wrong, newest_states_equal_model, states_equal_model
from resaga import quote
from sagas import Story, completed
from servers.process import wait_for


class Trouble:
    """Events flow in portions while something is broken; each answer given meanwhile is judged."""

    def __init__(self, world, process, seed, sagas=120):
        self.world, self.process, self.rng = world, process, random.Random(seed)
        self.left = list(generator.interleaved(seed, generator.sagas(seed, sagas)))
        self.portion_size = len(self.left) // 12 + 1
        self.answers = []

    def flow(self, portions=1):
        for _ in range(portions):
            portion, self.left = self.left[:self.portion_size], self.left[self.portion_size:]
            self.world.send(portion)
            for saga_id in {saga_id for saga_id, _ in self.rng.sample(portion, min(10, len(portion)))}:
                try:
                    status, body = fetch(self.process.port, f"/v1/sagas/{quote(saga_id)}")
                except TimeoutError:
                    continue  # no answer is not a wrong answer
                if status == 200:
                    self.answers.append((saga_id, body))
                else:
                    # Not yet read is no wrong answer; forgotten is one.
                    known = any(saga_id == seen for seen, _ in self.answers)
                    assert status == 503 or (status == 404 and not known), (saga_id, status, body)

    def settle(self):
        """All is well again: it catches up by itself, and everything is right."""
        self.world.send(self.left)
        self.world.await_caught_up(within=90)
        model = self.world.judge()
        for saga_id, body in self.answers:
            never_wrong(model, saga_id, body)
        assert self.process.is_running(), self.process.tail()
        newest_states_equal_model(self.process, model)
        archive_equals_log(self.world, model)
        return model


def test_redis_down_slow_wiped_read_only_and_full(make_world, private_redis):
    world = make_world({"redis": private_redis.url})
    process = world.start(**{"hot.timeout": "1s"})
    trouble = Trouble(world, process, seed=21)
    trouble.flow(1)

    private_redis.pause()  # slow: longer than the time limit of one operation
    trouble.flow(1)
    time.sleep(2.5)
    private_redis.resume()
    trouble.flow(1)

    private_redis.kill()
    trouble.flow(1)
    time.sleep(1)
    private_redis.start()  # and empty
    trouble.flow(2)

    private_redis.ask("FLUSHALL")
    trouble.flow(1)

    private_redis.ask("REPLICAOF", "127.0.0.1", "1")  # refuses writes
    trouble.flow(1)
    time.sleep(1)
    private_redis.ask("REPLICAOF", "NO", "ONE")
    trouble.flow(1)

    private_redis.ask("CONFIG", "SET", "maxmemory", "2mb")  # out of memory
    trouble.flow(1)
    time.sleep(1)
    private_redis.ask("CONFIG", "SET", "maxmemory", "0")
    trouble.flow(1)

    model = trouble.settle()
    states_equal_model(process, model, 1_000, seed=1)
    wait_for("hot heals", lambda: process.get("/readyz").status == 200, 30)


def test_a_redis_put_back_to_an_older_copy_of_itself_is_not_believed(make_world, private_redis):
    world = make_world({"redis": private_redis.url})
    process = world.start()
    trouble = Trouble(world, process, seed=22)
    trouble.flow(3)
    world.await_caught_up()
    private_redis.ask("SAVE")
    trouble.flow(4)
    world.await_caught_up()
    private_redis.kill()  # what came after the copy is lost
    private_redis.start()
    trouble.flow(2)
    model = trouble.settle()
    states_equal_model(process, model, 1_000, seed=2)


def test_redis_that_evicts_takes_only_what_is_durable(make_world, private_redis):
    world = make_world({"redis": private_redis.url})
    private_redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    process = world.start()
    trouble = Trouble(world, process, seed=23)
    trouble.flow(6)
    world.await_caught_up()
    used = int(next(line for line in private_redis.ask("INFO", "memory").splitlines() if line.startswith("used_memory:")).partition(":")[2])
    private_redis.ask("CONFIG", "SET", "maxmemory", str(used - 300_000))
    trouble.flow(2)
    evicted = int(next(line for line in private_redis.ask("INFO", "stats").splitlines() if line.startswith("evicted_keys:")).partition(":")[2])
    assert evicted > 0, "nothing was evicted: the fault did not bite"
    private_redis.ask("CONFIG", "SET", "maxmemory", "0")
    model = trouble.settle()
    states_equal_model(process, model, 1_000, seed=3)


def test_s3_down_and_killed_in_the_middle_of_puts(make_world, private_s3):
    s3 = private_s3
    world = make_world({"s3_endpoint": s3.endpoint, "s3_bucket": s3.bucket, "s3_key": s3.key, "s3_secret": s3.secret})
    process = world.start(**{"cold.timeout": "2s", "cold.flush_interval": "300ms"})
    trouble = Trouble(world, process, seed=24)
    trouble.flow(2)
    s3.kill()
    trouble.flow(3)
    time.sleep(2)
    s3.start()
    trouble.flow(2)
    s3.pause()
    trouble.flow(2)
    time.sleep(3)
    s3.resume()
    model = trouble.settle()
    states_equal_model(process, model, 1_000, seed=4)


def test_nothing_is_committed_while_s3_is_down(make_world, private_s3):
    s3 = private_s3
    world = make_world({"s3_endpoint": s3.endpoint, "s3_bucket": s3.bucket, "s3_key": s3.key, "s3_secret": s3.secret})
    process = world.start(**{"cold.timeout": "1s", "cold.flush_interval": "300ms"})
    group = f"{world.settings['kafka.group_id']}-materialize"
    stream = list(generator.interleaved(25, generator.sagas(25, 40)))
    world.send(stream[:200])
    world.await_caught_up()
    before = world.log.committed(group, world.events)
    s3.kill()
    world.send(stream[200:])
    time.sleep(5)
    assert world.log.committed(group, world.events) == before
    process.process.send_signal(signal.SIGKILL)  # with everything still in its buffers
    process.wait_exit(10)
    s3.start()
    process = world.start()
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def test_a_redis_that_is_full_and_a_bucket_that_does_not_exist_are_not_ready(make_world, private_redis):
    world = make_world({"redis": private_redis.url})
    process = world.start()

    def hot_is(up):
        ready, up = process.get("/readyz"), float(up)
        assert (ready.status == 200) == bool(up) and ready.body["checks"]["hot"] is bool(up), ready
        assert process.metrics()['resaga_dependency_up{dependency="hot"}'] == up
        return True
    private_redis.ask("CONFIG", "SET", "maxmemory", "1mb")
    wait_for("not ready", lambda: hot_is(False), 10)
    told = world.run("doctor")
    assert told.returncode == 7 and "out of memory: raise maxmemory" in told.stdout, (told.stdout, told.stderr)
    private_redis.ask("CONFIG", "SET", "maxmemory", "0")
    wait_for("ready", lambda: hot_is(True), 10)

    nowhere = {"cold.url": "s3://no-such-bucket-here/x"}
    told = world.run("doctor", **nowhere)
    assert told.returncode == 7 and "no such bucket" in told.stdout, (told.stdout, told.stderr)
    told = world.run("serve", **nowhere)
    assert told.returncode == 7 and "no such bucket" in told.stderr, (told.stdout, told.stderr)


def test_a_state_larger_than_redis_takes_holds_nothing_up(make_world, private_redis):
    world = make_world({"redis": private_redis.url}, **{"limits.max_state": "64MiB"})
    private_redis.ask("CONFIG", "SET", "proto-max-bulk-len", "2mb")
    process = world.start()
    rng = random.Random(28)
    story = Story("large").start()
    for number in range(40):
        # What does not get smaller: 600 KB of it in each third step.
        result = rng.randbytes(300_000).hex() if number % 3 == 0 else number
        story.event("STEP_STARTED", f"step-{number}").event("STEP_COMPLETED", f"step-{number}", result=result)
    others = [completed(f"s-{number}") for number in range(20)]
    middle = len(story.events) // 2
    world.send(story.stream()[:middle])
    world.send(pair for other in others for pair in other.stream())
    world.send(story.stream()[middle:])
    world.await_caught_up(within=60)
    model = world.judge()
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def partitions_of(process):
    return process.metrics().get('resaga_consumer_assigned_partitions{role="materialize"}', 0)


def test_partitions_that_come_while_s3_is_down_are_read_when_it_is_back(make_world, private_s3):
    s3 = private_s3
    world = make_world({"s3_endpoint": s3.endpoint, "s3_bucket": s3.bucket, "s3_key": s3.key, "s3_secret": s3.secret})
    quick = {"cold.timeout": "1s", "cold.flush_interval": "300ms", "kafka.properties.session_timeout_ms": 3000}
    first, second = world.start("first", **quick), world.start("second", **quick)
    stream = list(generator.interleaved(26, generator.sagas(26, 40)))
    world.send(stream[:200])
    world.await_caught_up()
    s3.kill()
    first.kill()
    wait_for("second opens what it was given", lambda: "open chain" in second.tail(200), 40)
    world.send(stream[200:])
    s3.start()
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(second, model)
    archive_equals_log(world, model)


def test_a_process_that_was_given_partitions_while_s3_is_down_stops_when_told_to(make_world, private_s3):
    s3 = private_s3
    world = make_world({"s3_endpoint": s3.endpoint, "s3_bucket": s3.bucket, "s3_key": s3.key, "s3_secret": s3.secret})
    quick = {"cold.timeout": "1s", "kafka.properties.session_timeout_ms": 3000}
    first, second = world.start("first", **quick), world.start("second", **quick)
    wait_for("both have some", lambda: partitions_of(first) and partitions_of(second), 30)
    s3.kill()
    first.kill()
    wait_for("second opens what it was given", lambda: "open chain" in second.tail(200), 40)
    code, seconds = second.terminate()
    assert (code, seconds < 10) == (0, True), (code, seconds)
