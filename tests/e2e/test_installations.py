"""Two installations and one archive, or one Redis: the second is refused by name, and nothing of the two is ever mixed."""

from sagas import Story
from servers.process import wait_for


def begun(saga_id):
    return Story(saga_id).start().done("reserve_inventory")


def refused(world, *names, **settings):
    """A process with these settings does not start, and says why; nor does `doctor` find all well."""
    process = world.launch(**settings)
    code = process.wait_exit(30)
    assert code == 2, (code, process.tail(20))
    said = process.tail(20)
    looked = world.run("doctor", **settings)
    assert looked.returncode == 2, looked.stdout
    for name in names:
        assert name in said and name in looked.stdout, (name, said, looked.stdout)


def owner(world):
    return (world.redis().get("resaga:owner") or b"").decode()


def test_another_group_is_refused_the_archive_until_it_is_handed_over(make_world):
    world = make_world(**{"cold.flush_interval": "300ms"})
    group, other = world.settings["kafka.group_id"], f"blue-{world.id}"
    first = world.start()
    world.send(begun("order-1").stream())
    world.await_caught_up()
    blue = {"kafka.group_id": other, "hot.url": world.redis_url + "?prefix=blue"}
    refused(world, group, other, **blue)
    assert world.run("store", "hand-over", "--reason", "INC-4412", **blue).returncode == 9
    assert world.run("store", "hand-over", "--reason", "INC-4412", "--yes").returncode == 2, "it is its own already"
    done = world.run("store", "hand-over", "--reason", "INC-4412", "--yes", **blue)
    assert done.returncode == 0 and group in done.stderr and other in done.stderr, done.stderr
    # Whoever had it and still runs stops by itself, and does not come back.
    assert first.wait_exit(30) == 2, first.tail(20)
    refused(world, group, other)
    second = world.start(**blue)
    wait_for("the history of before", lambda: second.state("order-1").status == 200, 30)
    assert second.state("order-1").body["completed_steps"] == ["reserve_inventory"]
    # The replay log is handed over by a command of its own; the stores are this group's.
    looked = world.run("doctor", **blue)
    assert "another installation" not in looked.stdout, looked.stdout


def test_another_group_is_refused_the_redis_and_a_wiped_one_is_claimed_again(make_world):
    world = make_world()
    group, other = world.settings["kafka.group_id"], f"blue-{world.id}"
    first = world.start()
    blue = {"kafka.group_id": other, "cold.url": world.settings["cold.url"] + "-blue"}
    refused(world, group, other, **blue)
    world.redis().flushdb()
    wait_for("the wiped Redis is claimed again", lambda: group in owner(world), 10)
    assert first.state("nobody").status in (404, 503) and first.is_running()
    # One that is another's now ends whoever believed that it was its own.
    world.redis().set("resaga:owner", owner(world).replace(group, other))
    assert first.wait_exit(30) == 2, first.tail(20)
    assert other in first.tail(20)


def test_another_cluster_with_the_same_topics_and_group_is_refused(private_kafka, make_world):
    world = make_world()
    production = world.start()
    world.send(begun("order-1").stream())
    world.await_caught_up()
    staging = make_world(other_servers={"kafka": private_kafka.address})
    staging.log.create(world.topics, world.partitions)
    pointed = {**world.settings, "kafka.brokers": private_kafka.address}
    refused(staging, "another installation", world.settings["kafka.group_id"], **pointed)
    assert production.state("order-1").status == 200 and production.is_running()
