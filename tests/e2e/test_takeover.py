"""A stopped process whose partitions moved wakes up and does no harm (guarantees 2 and 4)."""

import time

import generator
from checks import archive_equals_log, await_log, newest_states_equal_model, replayed_exactly_once
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for

SESSION = {"kafka.properties.session_timeout_ms": 3000, "kafka.properties.heartbeat_interval_ms": 500}


def test_a_stopped_worker_that_wakes_after_its_partitions_moved_publishes_nothing(world):
    ids = [f"order-{number}" for number in range(240)]
    for saga_id in ids:
        for event in failed(saga_id).events:
            world.log.send(world.events, saga_id, event)
    world.log.flush()
    # Small batches: one is committed while the next is decided.
    small = SESSION | {"replay.max_batch_requests": 10}
    first = world.start("first", **small)
    world.await_caught_up()
    stream = list(generator.interleaved(5, generator.sagas(5, 120, prefix="w-")))
    requests = [replay(saga_id) for saga_id in ids]

    def ask(some):
        for request in some:
            world.log.send(world.requests, request["saga_id"], request)
        world.log.flush()

    ask(requests[:80])
    world.send(stream[:700])
    first.pause()  # in the middle of both
    second = world.start("second", **small)
    ask(requests[80:160])
    world.send(stream[700:1_400])
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests[:160]], within=90)
    first.resume()
    ask(requests[160:])
    world.send(stream[1_400:])
    await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in requests], within=90)
    world.await_caught_up()
    # The one that was stopped comes back into the group, or ends itself; it does not hang.
    wait_for("first is back or gone", lambda: not first.is_running() or first.get("/livez").status == 200, 30)
    replayed_exactly_once(world, requests)
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(second, model)


def test_two_processes_take_turns_being_stopped(world):
    stream = list(generator.interleaved(6, generator.sagas(6, 150)))
    pair = [world.start("a", **SESSION), world.start("b", **SESSION)]
    portion = len(stream) // 4 + 1
    for turn in range(4):
        world.send(stream[turn * portion:(turn + 1) * portion])
        sleeper = pair[turn % 2]
        sleeper.pause()
        time.sleep(4)  # longer than the session: its partitions move
        sleeper.resume()
    world.await_caught_up()
    model = world.judge()
    archive_equals_log(world, model)
    alive = [process for process in pair if process.is_running()]
    assert alive, "both processes ended"
    newest_states_equal_model(alive[0], model)
