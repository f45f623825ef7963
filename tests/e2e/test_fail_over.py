"""A Redis primary dies with what its replica does not have yet (guarantees 1, 2, 3 and 5)."""


from checks import archive_equals_log, newest_states_equal_model
from sagas import Story, completed
from servers.process import wait_for


def test_entries_lost_between_their_write_and_their_mark_are_written_again(private_redis, replica, make_world):
    primary = private_redis
    world = make_world({"redis": primary.url})
    owner = world.start(**{"hot.timeout": "1s", "cold.flush_interval": "5s"})
    stories = [completed(f"order-{number}") for number in range(20)]
    world.send(one for story in stories for one in story.stream()[:3])
    for story in stories:
        wait_for(f"{story.saga_id} in hot", lambda saga_id=story.saga_id: int(owner.state(saga_id).body["entry"]["sequence"]) == 3, 30)
    replica.follow(primary)

    # From here on the replica gets nothing, and the primary takes entries and no mark.
    replica.lose_sight()
    primary.ask("ACL", "SETUSER", "default", "-eval", "-evalsha")
    world.send(one for story in stories for one in story.stream()[3:])

    def acknowledged():
        keys = world.redis().keys("*:s:*")
        return any(world.redis().zcard(key) > 3 for key in keys)
    wait_for("entries on the primary alone", acknowledged, 30)
    replica.take_over(primary)

    # What is told to be complete has everything, from hot before anything is in S3 and after.
    for story in stories:
        wait_for(f"{story.saga_id} completed", lambda saga_id=story.saga_id: owner.state(saga_id).body["status"] == "completed", 30)
    world.await_caught_up()
    newest_states_equal_model(owner, world.judge())

    # The next owner folds on from what it finds there.
    owner.kill()
    owner = world.start()
    for story in stories:
        world.send(Story.event(story, "CONTEXT_UPDATED", context_set={"after": True}).stream()[-1:])
    world.await_caught_up()
    model = world.judge()
    newest_states_equal_model(owner, model)
    archive_equals_log(world, model)
