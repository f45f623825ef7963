"""Guarantees 1, 2 and 4: killed at named points and at random moments, every entry is there once and every request is one restored saga."""

import random
import signal

import generator
from checks import archive_equals_log, await_log, newest_states_equal_model, replayed_exactly_once
from log import Follower
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for

INGEST = ["materialize.before_hot", "materialize.after_hot", "materialize.before_put", "materialize.after_put", "materialize.before_commit", "materialize.after_commit"]
REPLAY = ["replay.before_begin", "replay.after_produce", "replay.after_send_offsets", "replay.before_commit", "replay.after_commit"]
SEED = 4_711
ABORTED = -signal.SIGABRT  # how a crash point ends the process


class Stream:
    """Random events that are handed out in portions."""

    def __init__(self, seed, sagas):
        self.left = list(generator.interleaved(seed, generator.sagas(seed, sagas)))

    def portion(self, count):
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def test_ingest_survives_a_crash_at_each_named_point(world):
    rng, stream = random.Random(SEED), Stream(SEED, 150)
    for point in INGEST:
        process = world.launch("steady", **{"RESAGA_CRASH_AT": f"{point}:{rng.randrange(1, 4)}", "cold.flush_interval": "300ms"})
        # The point may be reached once for each batch, so events come until it was.
        for _ in range(60):
            world.send(stream.portion(20) or Stream(rng.random(), 2).portion(20))
            code = process.exited_within(0.5)
            if code is not None:
                break
        assert code == ABORTED, f"{point}: not reached, exit code {code}\n{process.tail()}"
    world.send(stream.left)
    process = world.start("steady")
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def test_ingest_survives_kill_9_at_random_moments(world, full):
    rng, stream = random.Random(SEED + 1), Stream(SEED + 1, 150)
    for _ in range(30 if full else 6):
        process = world.start("steady", **{"cold.flush_interval": "500ms"})
        for _ in range(rng.randrange(1, 6)):
            world.send(stream.portion(120))
            process.exited_within(rng.uniform(0.05, 0.6))
        assert process.is_running(), process.tail()
        process.kill()
    world.send(stream.left)
    process = world.start("steady")
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def with_failed_sagas(world, count):
    ids = [f"order-{number}" for number in range(count)]
    for saga_id in ids:
        for event in failed(saga_id).events:
            world.log.send(world.events, saga_id, event)
    world.log.flush()
    return ids


def test_replays_survive_a_crash_at_each_named_point(world):
    rng = random.Random(SEED + 2)
    ids = iter(with_failed_sagas(world, 600))
    process = world.start("steady")
    world.await_caught_up()
    assert process.terminate()[0] == 0
    requests = []
    for point in REPLAY:
        for number in (1, 2):
            process = world.launch("steady", **{"RESAGA_CRASH_AT": f"{point}:{number}"})
            for _ in range(40):
                fresh = [replay(next(ids)) for _ in range(rng.randrange(1, 6))] if len(requests) < 500 else []
                requests += fresh
                for request in fresh:
                    world.log.send(world.requests, request["saga_id"], request)
                world.log.flush()
                code = process.exited_within(0.5)
                if code is not None:
                    break
            assert code == ABORTED, f"{point}:{number}: not reached, exit code {code}\n{process.tail()}"
    # A requester that does not know whether it was heard sends again.
    for request in rng.sample(requests, 30):
        world.log.send(world.requests, request["saga_id"], request)
    world.log.flush()
    process = world.start("steady")
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests])
    world.await_caught_up()
    replayed_exactly_once(world, requests)
    model = world.judge()
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def test_replays_survive_kill_9_and_another_process_takes_over_at_once(world, full):
    """A worker dies with its transaction open and the next batch decided; the next one, another instance, starts at once."""
    small = {"replay.max_batch_requests": 20}
    rng = random.Random(SEED + 3)
    ids = iter(with_failed_sagas(world, 900))
    requests = []
    process = world.start("first", **small)
    follower = Follower(world.log, world.restored)
    for turn in range(12 if full else 4):
        burst = [replay(next(ids)) for _ in range(75 if full else 200)]
        requests += burst
        for request in burst:
            world.log.send(world.requests, request["saga_id"], request)
        world.log.flush()
        process.exited_within(rng.uniform(0.0, 0.8))
        process.kill()
        process = world.start(f"next-{turn}", **small)
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests], within=120)
    world.await_caught_up()
    replayed_exactly_once(world, requests)
    wait_for("the reader beside it has them all", lambda: len(follower.values) >= len(requests), 10)
    assert sorted(follower.stop()) == sorted(m.value() for m in world.log.read(world.restored))
    archive_equals_log(world, world.judge())
