"""Fixtures: the servers of the session (from the environment that tests/servers/up wrote), private ones for fault tests, and worlds."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from registry_stub import RegistryStub  # noqa: E402
from resaga import binary  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.redis import Redis  # noqa: E402
from servers.s3 import SeaweedFs  # noqa: E402
from world import World  # noqa: E402

NEEDED = {"kafka": "RESAGA_TEST_KAFKA", "redis": "RESAGA_TEST_REDIS", "s3_endpoint": "RESAGA_TEST_S3_ENDPOINT", "s3_bucket": "RESAGA_TEST_S3_BUCKET",
          "s3_key": "RESAGA_TEST_S3_KEY", "s3_secret": "RESAGA_TEST_S3_SECRET"}


@pytest.fixture(scope="session")
def servers():
    missing = [name for name in NEEDED.values() if not os.environ.get(name)]
    if missing:
        pytest.exit(f"missing {', '.join(missing)}: run tests/run, or tests/servers/up DIR and source DIR/env", 2)
    binary()
    return {name: os.environ[variable] for name, variable in NEEDED.items()}


@pytest.fixture(scope="session")
def full():
    """Larger numbers: tests/run --full."""
    return bool(os.environ.get("RESAGA_TEST_FULL"))


@pytest.fixture
def make_world(servers, tmp_path, request):
    made = []

    def make(other_servers=None, **settings):
        made.append(World(tmp_path / f"world-{len(made)}", {**servers, **(other_servers or {})}, **settings))
        return made[-1]
    yield make
    failed = getattr(request.node, "failed", False)
    for one in made:
        if failed:
            try:
                for line in one.evidence():
                    print(line)
            except Exception as error:  # whatever the test broke may still be broken
                print(f"no more evidence: {error!r}")
            for process in one.processes:
                print(f"--- {process.name}, exit {process.process.poll()} ---\n{process.tail(80)}")
        one.close()


@pytest.fixture
def world(make_world):
    return make_world()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.failed = True


@pytest.fixture
def private_redis(tmp_path):
    server = Redis(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def replica(tmp_path):
    server = Redis(tmp_path / "replica").start()
    yield server
    server.kill()


@pytest.fixture
def make_kafka(tmp_path):
    made = []

    def make(joins=None, **properties):
        made.append(Kafka(tmp_path / f"kafka-{len(made)}", properties, joins))
        return made[-1].start()
    yield make
    for server in made:
        server.kill()


@pytest.fixture
def private_kafka(make_kafka):
    return make_kafka()


@pytest.fixture
def private_s3(tmp_path):
    server = SeaweedFs(tmp_path / "s3").start()
    yield server
    server.kill()


@pytest.fixture
def registry():
    stub = RegistryStub().start()
    yield stub
    stub.stop()
