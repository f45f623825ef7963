"""Guarantee 4 for everything that asks for replays at once: singles, batches, undos, delayed and policy-made requests while workers
are killed, stopped, and come and go; an independent `read_committed` count decides."""

import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

import times
from checks import dead_letters, log_records
from jsontext import dumps, loads
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for

SEED = 7_412
SECOND = 1_000_000
WHO = {"requested_by": "ops@example.org", "reason": "INC-4412"}
FROM = {"from": {"step": "charge_payment"}}
ENTRIES = len(failed("x").events)
POINTS = ["replay.before_begin", "replay.after_produce", "replay.after_send_offsets", "replay.before_commit", "replay.after_commit"]


def uuid5(space, name):
    return str(uuid.uuid5(uuid.UUID(space), name))


@pytest.fixture
def half_a_minute_ahead(tmp_path):
    library = tmp_path / "clock_ahead.so"
    source = Path(__file__).with_name("clock_ahead.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD_SECONDS": "30"}


class Chaos:
    """Two workers, one with a clock half a minute ahead: one of them is killed, stopped for a while, or joined by a third, until told to
    end. At least one runs at any time."""

    def __init__(self, world, ahead, seed, stop_for):
        self.world, self.rng, self.stop_for = world, random.Random(seed), stop_for
        self.settings = {"one": {}, "two": ahead}
        self.running = {name: world.start(name, **settings) for name, settings in self.settings.items()}
        self.done, self.kills, self.stops, self.joins = threading.Event(), 0, 0, 0
        self.problem = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self.done.is_set():
                name = self.rng.choice(list(self.running))
                self.rng.choice([self._kill, self._kill, self._kill_at_a_point, self._stop, self._join])(name)
                self.done.wait(self.rng.uniform(0.3, 1.5))
        except Exception as error:  # told to whoever waits
            self.problem = error

    def _kill(self, name):
        self.running[name].kill()
        self.kills += 1
        self.running[name] = self.world.launch(name, **self.settings[name])

    def _kill_at_a_point(self, name):
        self.running[name].kill()
        point = f"{self.rng.choice(POINTS)}:{self.rng.randrange(1, 4)}"
        process = self.world.launch(name, **self.settings[name], RESAGA_CRASH_AT=point)
        process.exited_within(6)
        if process.is_running():
            process.kill()
        self.kills += 1
        self.running[name] = self.world.launch(name, **self.settings[name])

    def _stop(self, name):
        process = self.running[name].process
        process.send_signal(signal.SIGSTOP)
        self.done.wait(self.stop_for)
        process.send_signal(signal.SIGCONT)
        self.stops += 1

    def _join(self, _):
        third = self.world.launch("three")
        third.exited_within(self.rng.uniform(1, 3))
        third.kill()
        self.joins += 1

    def end(self):
        self.done.set()
        self._thread.join(60)
        assert not self._thread.is_alive() and self.problem is None, self.problem
        for name, process in self.running.items():
            if not process.is_running():
                self.running[name] = self.world.launch(name, **self.settings[name])
        for process in self.running.values():
            process.await_ready()
        return self.running["one"]


@pytest.mark.timeout(900)
def test_every_kind_of_request_is_carried_out_once_whatever_dies(world, full, half_a_minute_ahead):
    each = 400 if full else 60
    rng = random.Random(SEED)
    names = {kind: [f"{kind}-{number}" for number in range(each)] for kind in ("single", "delayed", "topic", "http", "undo", "policy")}

    def fail(ids):
        for saga_id in ids:
            for _, event in failed(saga_id).stream():
                world.log.send(world.events, saga_id, event)
        world.log.flush()

    for kind in names:
        if kind != "policy":
            fail(names[kind])
    chaos = Chaos(world, half_a_minute_ahead, SEED, 20 if full else 8)

    def ask(path, body):
        """Of whoever answers: a client that had no answer asks again, under the same id."""
        def answered():
            for process in list(chaos.running.values()):
                try:
                    answer = process.post(path, dumps(body), timeout=15)
                except OSError:
                    continue
                if answer.status == 202:
                    return answer.body
                assert answer.status in (404, 503, 500), (answer.status, answer.body)
            return None
        return wait_for(f"POST {path}", answered, 180, every=0.5)

    schedule_id = str(uuid.uuid4())
    ask("/v1/schedules", {"request_id": schedule_id, "schedule": {"policy": {"on": {"saga_name": "order-processing"}, "delay": "0s"}}, **WHO})
    wait_for("the policy is in the log", lambda: schedule_id in log_records(world), 120)

    requests = [replay(saga_id) for saga_id in names["single"] + names["undo"]]
    requests += [replay(saga_id, not_before=times.text(times.now() + rng.randrange(1, 20) * SECOND)) for saga_id in names["delayed"]]
    rng.shuffle(requests)
    for request in requests:
        for _ in range(rng.choice([1, 1, 2])):
            world.log.send(world.requests, request["saga_id"], request)
    by_topic, by_http = str(uuid.uuid4()), str(uuid.uuid4())
    for _ in range(2):
        batch = {"saga_ids": names["topic"], **FROM}
        world.log.send(world.requests, by_topic, {"request_id": by_topic, "command": "BATCH", "batch": batch, **WHO})
    world.log.flush()
    ask("/v1/batches", {"request_id": by_http, "batch": {"saga_ids": names["http"], "rate_per_second": each / 10, **FROM}, **WHO})
    to_fail = list(names["policy"])
    began, lasts = time.monotonic(), 180 if full else 40

    expected = {replay_id(request["request_id"], request["saga_id"]): request["saga_id"] for request in requests}
    for batch_id, kind in ((by_topic, "topic"), (by_http, "http")):
        expected.update({replay_id(batch_id, saga_id): saga_id for saga_id in names[kind]})
    by_policy = {replay_id(uuid5(schedule_id, f"{saga_id}/{ENTRIES}"), saga_id): saga_id for saga_id in names["policy"]}
    expected.update(by_policy)

    # Undone as soon as they are there, and while the rest goes on.
    undone = {}

    def undo_what_is_there():
        fail([to_fail.pop() for _ in range(min(len(to_fail), 3 * each // 60))])
        known = log_records(world)
        for request in requests:
            key = replay_id(request["request_id"], request["saga_id"])
            record = known.get(key)
            if request["saga_id"] not in names["undo"] or not record or key in undone:
                continue
            if record["status"] == "published":
                for kind, step in (("STEP_STARTED", "charge_payment"), ("STEP_COMPLETED", "charge_payment"), ("SAGA_COMPLETED", None)):
                    event = {"event_id": f"{key}/{kind}", "saga_id": record["new_saga_id"], "saga_name": "order-processing", "kind": kind}
                    world.log.send(world.events, record["new_saga_id"], {**event, **({"step": step} if step else {})})
            elif record["status"] == "completed":
                undone[key] = {"request_id": str(uuid.uuid4()), "command": "UNDO", "saga_id": request["saga_id"], "replay_id": key, **WHO}
                for _ in range(2):
                    world.log.send(world.requests, request["saga_id"], undone[key])
        world.log.flush()
        for process in list(chaos.running.values()):
            for batch_id in (by_topic, by_http):
                try:
                    answer = process.get(f"/v1/batches/{batch_id}", timeout=5)
                except OSError:
                    continue
                if answer.status == 200:
                    assert sum(int(n) for n in answer.body["counts"].values()) == int(answer.body["total"]), answer.body
        assert chaos.problem is None, chaos.problem
        missing = [key for key in expected if known.get(key, {}).get("status", "accepted") == "accepted"]
        assert time.monotonic() - began > lasts, "not long enough"
        assert len(undone) == each and not missing and not to_fail, f"{len(undone)} undone, {len(missing)} of {len(expected)} replays missing"
        return True

    # So long that it is in the middle of all of it, and then to the end in peace.
    try:
        wait_for("some chaos", undo_what_is_there, lasts + 20, every=1)
    except TimeoutError:
        pass
    process = chaos.end()
    wait_for("all are carried out", undo_what_is_there, 240, every=1)
    undo_ids = {replay_id(undo["request_id"], undo["replay_id"]): undo for undo in undone.values()}

    def undos_are_done():
        known = log_records(world)
        found = Counter(known.get(key, {}).get("status") for key in undo_ids)
        assert found == {"published": each}, found
        return known
    known = wait_for("the undos", undos_are_done, 120, every=1)

    published = Counter(loads(m.value().decode())["replay_id"] for m in world.log.read(world.restored))
    wanted = Counter([*expected, *undo_ids])
    assert published == wanted, f"missing {list((wanted - published))[:5]}, too many {list((published - wanted).items())[:5]}"
    started = Counter()
    for message in world.log.read(world.events):
        if b'"SAGA_RESTORED"' in message.value():
            started[loads(message.value().decode())["event_id"]] += 1
    assert started == Counter([*expected]), f"SAGA_RESTORED: {list((started - Counter([*expected])).items())[:5]}, missing {list((Counter([*expected]) - started))[:5]}"
    status = {key: known[key]["status"] for key in expected}
    assert {status[key] for key in expected if key not in undone} == {"published"}
    assert {status[key] for key in undone} == {"undoing"}
    assert all(known[key]["schedule_id"] == schedule_id for key in by_policy)
    assert dead_letters(world) == []
    for batch_id in (by_topic, by_http):
        batch = process.get(f"/v1/batches/{batch_id}").body
        assert (int(batch["total"]), int(batch["counts"]["published"])) == (each, each), batch
    shown = process.get(f"/v1/schedules/{schedule_id}").body
    assert int(shown["counts"]["published"]) == each
    print(f"{len(expected)} replays, {len(undone)} undos; {chaos.kills} kills, {chaos.stops} stops, {chaos.joins} joins")
    assert chaos.kills >= 2 and chaos.stops + chaos.joins >= 1
