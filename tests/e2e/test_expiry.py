"""What is durable in S3 does not stay in Redis for ever (README: `hot.ttl`), whatever happened in between."""

import signal

from checks import newest_states_equal_model, states_equal_model
from sagas import Story, completed
from servers.process import wait_for

ABORTED = -signal.SIGABRT


def lasting(redis):
    """Keys of sagas that never expire."""
    keys = [key for key in redis.keys("*:s:*")]
    assert keys, "no saga is in Redis"
    return [key for key in keys if redis.ttl(key) < 0]


def send(world, prefix, count=60):
    world.send(one for number in range(count) for one in completed(f"{prefix}-{number}").stream())


def test_keys_may_expire_after_a_crash_between_durable_and_may_expire(world):
    owner = world.launch(**{"RESAGA_CRASH_AT": "materialize.after_put:1", "cold.flush_interval": "300ms"})
    send(world, "order")
    assert owner.wait_exit(60) == ABORTED
    assert lasting(world.redis()), "the crash came too late"
    owner = world.start()
    world.await_caught_up()
    wait_for("every key may expire", lambda: not lasting(world.redis()), 20)
    newest_states_equal_model(owner, world.judge())


def test_keys_may_expire_after_a_fail_over_that_forgot_it(private_redis, replica, make_world):
    primary = private_redis
    world = make_world({"redis": primary.url})
    owner = world.start(**{"hot.timeout": "1s", "cold.flush_interval": "10s"})
    send(world, "order")
    wait_for("all in hot", lambda: len(lasting(world.redis())) == 60, 30)
    replica.follow(primary)
    replica.lose_sight()
    world.await_caught_up()
    wait_for("every key may expire", lambda: not lasting(world.redis()), 20)
    replica.take_over(primary)
    assert lasting(world.redis()), "the replica knew"
    wait_for("every key may expire again", lambda: not lasting(world.redis()), 20)
    newest_states_equal_model(owner, world.judge())


def test_a_saga_that_goes_on_for_ever_does_not_grow_for_ever_in_redis(world):
    owner = world.start(**{"cold.flush_interval": "300ms"})
    story = Story("long").start()
    for number in range(2_600):
        story.event("CONTEXT_UPDATED", context_set={"number": number})
    world.send(story.stream())
    world.await_caught_up()
    key, = world.redis().keys("*:s:long")
    wait_for("its durable head is gone", lambda: world.redis().zcard(key) <= 1_024, 20)
    # It goes on, and all of it can be told.
    world.send(story.event("SAGA_COMPLETED").stream()[-1:])
    model = world.judge()
    owner.await_event(model, "long")
    newest_states_equal_model(owner, model)
    states_equal_model(owner, model, 20, seed=1)
    page = owner.get("/v1/sagas/long/history", limit=3).body
    assert len(page["entries"]) == 3
