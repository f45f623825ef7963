"""Starting, stopping, wrong configuration, and the command line."""

import json
import signal
import socket
import time

import pytest

import generator
from checks import archive_equals_log, newest_states_equal_model
from sagas import Story, completed, failed
from servers.process import free_port, wait_for


def test_sigterm_drains_and_exits_with_0(world):
    stream = list(generator.interleaved(61, generator.sagas(61, 60)))
    process = world.start("steady", **{"cold.flush_interval": "30s"})
    world.send(stream)
    model = world.judge()
    wait_for("everything is read", lambda: all(process.state(s).status == 200 for s in list(model.sagas)[:20]), 30)
    code, seconds = process.terminate()
    assert code == 0, process.tail()
    assert seconds < 20
    # Flushed and committed on the way out: nothing is left to do, and nothing is done twice.
    world.await_caught_up(within=5)
    archive_equals_log(world, model)
    process = world.start("steady")
    newest_states_equal_model(process, model)
    archive_equals_log(world, model)


def test_a_second_signal_exits_at_once(make_world, private_s3):
    s3 = private_s3
    world = make_world({"s3_endpoint": s3.endpoint, "s3_bucket": s3.bucket, "s3_key": s3.key, "s3_secret": s3.secret})
    process = world.start(**{"serve.shutdown_timeout": "60s", "cold.flush_interval": "30s"})
    world.send(failed("order-1").stream())
    wait_for("it is read", lambda: process.state("order-1").status == 200, 30)
    s3.kill()  # so that the first signal cannot come to an end
    process.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.is_running()
    process.process.send_signal(signal.SIGTERM)
    assert process.wait_exit(3) != 0


def wrong(world):
    closed = f"127.0.0.1:{free_port()}"
    yield "an unknown key", {"kafka.brokrs": "x"}, 2, "brokers"
    yield "a duration without unit", {"cold.flush_interval": "30"}, 2, "flush_interval"
    yield "a size that is none", {"limits.max_record": "much"}, 2, "max_record"
    yield "an unknown store", {"hot.url": "ftp://x"}, 2, "hot.url"
    yield "a topic that is missing", {"topics.events": "no-such-topic"}, 2, "no-such-topic"
    yield "different partition counts", {"topics.log": world.odd}, 2, world.odd
    yield "no broker there", {"kafka.brokers": closed}, 7, closed
    yield "no Redis there", {"hot.url": f"redis://{closed}/0"}, 7, ""
    yield "no S3 there", {"cold.endpoint": f"http://{closed}"}, 7, ""
    yield "no permission", {"AWS_SECRET_ACCESS_KEY": "wrong"}, 7, ""


def test_a_wrong_configuration_ends_with_a_clear_message_and_nothing_started(world):
    world.odd = f"odd.{world.id}"
    world.log.create([world.odd], world.partitions + 1)
    world.topics.append(world.odd)
    found = []
    for what, settings, code, named in wrong(world):
        process = world.launch(**settings)
        got = process.exited_within(45)
        if got is None:
            process.kill()
        if got != code or named not in process.tail():
            found.append(f"{what}: exit {got}, expected {code} and a message about {named!r}:\n{process.tail(5)}")
    assert not found, "\n".join(found)
    assert set(world.log.committed(f"{world.settings['kafka.group_id']}-materialize", world.events).values()) == {-1001}


def test_ready_only_when_it_is(world):
    process = world.launch()
    wait_for("alive", lambda: process.get("/livez").status == 200, 30)
    process.await_ready()
    missing = process.get("/no/such/route")
    assert missing.status == 404
    schema = process.get("/openapi.json")
    assert schema.status == 200 and "/v1/sagas/{id}" in json.dumps(schema.body)
    assert any(name.startswith("resaga_consumer_assigned_partitions") for name in process.metrics())


def test_topics_are_planned_and_made_by_the_command_line(make_world):
    world = make_world()
    names = {f"topics.{name}": f"{name}-made.{world.id}" for name in ("events", "requests", "restored", "log", "dead_letters")}
    world.topics += names.values()
    plan = world.run("topic", "plan", **names)
    assert plan.returncode == 0 and all(name in plan.stdout for name in names.values()), plan
    known = world.log.admin.list_topics(timeout=10).topics
    assert not set(names.values()) & set(known)
    assert world.run("topic", "apply", **names).returncode == 0
    assert world.run("topic", "apply", **names).returncode == 0
    known = world.log.admin.list_topics(timeout=10).topics
    assert {len(known[name].partitions) for name in names.values()} == {world.partitions}


def test_the_command_line_asks_over_http(world):
    process = world.start()
    world.send([*failed("order-1").stream(), *completed("order-2").stream()])
    world.await_caught_up()
    server = {"RESAGA_SERVER": f"http://127.0.0.1:{process.port}"}
    got = world.run("saga", "get", "order-1", "-o", "json", **server)
    assert got.returncode == 0 and json.loads(got.stdout)["status"] == "failed", got
    listed = world.run("saga", "list", "--status", "failed", "-o", "json", **server)
    assert listed.returncode == 0 and "order-1" in listed.stdout and "order-2" not in listed.stdout, listed
    for command in ("history", "checkpoints", "lineage", "context"):
        done = world.run("saga", command, "order-1", "-o", "json", **server)
        assert done.returncode == 0 and json.loads(done.stdout), (command, done)
    table = world.run("saga", "get", "order-1", **server)
    assert table.returncode == 0 and "failed" in table.stdout, table
    missing = world.run("saga", "get", "nobody", **server)
    assert missing.returncode == 5 and not missing.stdout and missing.stderr, missing
    replayed = world.run("replay", "run", "order-1", "--from-step", "charge_payment", "--set", "payment_token=tok_new", "--reason", "INC-1", "-o", "json", **server)
    assert replayed.returncode == 0, replayed
    key = json.loads(replayed.stdout)["replay_id"]
    wait_for("published", lambda: json.loads(world.run("replay", "get", key, "-o", "json", **server).stdout)["status"] == "published", 30, every=0.5)
    conflict = world.run("replay", "run", "order-1", "--from-step", "charge_payment", "--reason", "INC-1", **server)
    assert conflict.returncode == 6, conflict
    assert world.run("saga", "get", **server).returncode == 2
    closed = world.run("saga", "get", "order-1", RESAGA_SERVER=f"http://127.0.0.1:{free_port()}")
    assert closed.returncode == 7, closed


def test_nothing_listens_beyond_loopback(world):
    process = world.start()
    outward = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in outward:
        with pytest.raises(OSError), socket.create_connection((address, process.port), timeout=1):
            pass


def test_configuration_is_shown_and_checked(world):
    assert world.run("config", "check").returncode == 0
    bad = world.run("config", "check", **{"cold.flush_intervall": "1s"})
    assert bad.returncode == 2 and "flush_interval" in bad.stderr, bad
    shown = world.run("config", "show")
    assert shown.returncode == 0 and world.events in shown.stdout and world.settings["AWS_SECRET_ACCESS_KEY"] not in shown.stdout + shown.stderr


def test_a_batch_may_need_more_sagas_than_the_cache_keeps(make_world):
    world = make_world(partitions=1, **{"limits.max_cached_sagas": 256})
    ids = [f"order-{number}" for number in range(600)]
    process = world.start("one")
    world.send(pair for saga_id in ids for pair in Story(saga_id).start().stream())
    world.await_caught_up()
    assert process.terminate()[0] == 0
    world.send((saga_id, Story(saga_id).start().done("reserve_inventory").events[1]) for saga_id in ids)
    process = world.start("one")
    world.send((saga_id, Story(saga_id).start().done("reserve_inventory").events[2]) for saga_id in ids[::2])
    world.await_caught_up()
    model = world.judge()
    archive_equals_log(world, model)
    newest_states_equal_model(process, model)
