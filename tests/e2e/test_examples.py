"""The scripts under examples/ prove what they say, again and again on one installation, and nothing without a server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resaga import binary
from servers.process import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# At least so many facts; and what the server is to be set to.
FACTS = {"incident": 9, "audit": 14, "compensation": 13, "energy": 12}
SETTINGS = {"energy": {"stuck.after": "3s"}}


def run(example, world, port):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RESAGA_", "AWS_"))}
    environment = {**clean, "RESAGA": binary(), "RESAGA_SERVER": f"http://127.0.0.1:{port}", "BROKERS": world.servers["kafka"],
                   "EVENTS_TOPIC": world.events, "PYTHON": sys.executable, "TMPDIR": str(world.directory)}
    ended = subprocess.run([EXAMPLES / example / "run.sh"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=120)
    print(f"--- {example}, exit {ended.returncode} ---\n{ended.stdout}")
    return ended.returncode, [line for line in ended.stdout.splitlines() if line.startswith("ok  ")]


@pytest.mark.parametrize("example", FACTS)
def test_an_example_holds_each_time_that_it_runs(world, example):
    process = world.start(**SETTINGS.get(example, {}))
    for _ in range(2):
        code, facts = run(example, world, process.port)
        assert code == 0 and len(facts) >= FACTS[example], (code, facts)


@pytest.mark.parametrize("example", FACTS)
def test_an_example_without_a_server_fails_at_once(world, example):
    world.directory.mkdir(exist_ok=True)
    code, facts = run(example, world, free_port())
    assert code != 0 and not facts
    assert not world.log.read(world.events), "nothing was published"


def test_a_check_that_does_not_hold_ends_the_script(world):
    process = world.start()
    script = 'set -euo pipefail; SAGA_NAME=x; source "$1/checks.sh"; same "a" 1 1; same "b" 1 2; same "c" 1 1'
    environment = {"PATH": os.environ["PATH"], "RESAGA": binary(), "RESAGA_SERVER": f"http://127.0.0.1:{process.port}"}
    ended = subprocess.run(["bash", "-c", script, "bash", EXAMPLES], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "ok  a\n") and "NO  b" in ended.stderr, ended
