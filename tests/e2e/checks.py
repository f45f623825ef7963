"""Verdicts that several tests share: answers against the model, the archive against the log, restored sagas against requests."""

import http.client
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import times
from jsontext import loads
from model import answer, differences
from plan import replay_id
from resaga import quote
from servers.process import wait_for

_threads = threading.local()


def fetch(port, path):
    """One GET on a connection that the thread keeps: (status, body)."""
    for last_try in (False, True):
        connection = getattr(_threads, "connections", {}).get(port)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            _threads.connections = {**getattr(_threads, "connections", {}), port: connection}
        try:
            connection.request("GET", path)
            got = connection.getresponse()
            return got.status, loads(got.read().decode())
        except (ConnectionError, http.client.HTTPException):
            connection.close()
            _threads.connections.pop(port)
            if last_try:
                raise


def random_points(model, count, seed):
    """(saga id, T) pairs: between, before and after the entries, and exactly at their times."""
    rng = random.Random(seed)
    ids = sorted(saga_id for saga_id, saga in model.sagas.items() if saga.entries)
    for _ in range(count):
        saga_id = rng.choice(ids)
        entries = model.sagas[saga_id].entries
        first, last = entries[0].effective, entries[-1].effective
        at = rng.choice([rng.choice(entries).effective, rng.choice(entries).effective - 1, rng.randint(first - 1_000_000, last + 1_000_000)])
        yield saga_id, at


def states_equal_model(process, model, count, seed, source=None, threads=4):
    """Asks for `count` random states and fails with the first few that differ."""
    def ask(point):
        saga_id, at = point
        status, body = fetch(process.port, f"/v1/sagas/{quote(saga_id)}?at={times.text(at)}")
        expected = model.sagas[saga_id].state_at(at)
        if expected is None:
            right = status == 404 and body["code"] == "before_first_event"
            return None if right else (saga_id, times.text(at), status, body)
        if status != 200:
            return saga_id, times.text(at), status, body
        wrong = differences({**answer(model.sagas[saga_id], expected), "as_of": times.text(at)}, body)
        if source and body["source"] not in source:
            wrong["source"] = (source, body["source"])
        return (saga_id, times.text(at), wrong) if wrong else None
    with ThreadPoolExecutor(threads) as pool:
        wrong = [found for found in pool.map(ask, random_points(model, count, seed)) if found]
    assert not wrong, f"{len(wrong)} of {count} answers differ; the first: " + "\n".join(map(str, wrong[:3]))


def newest_states_equal_model(process, model, threads=4):
    """Every saga's newest state."""
    def ask(saga_id):
        saga = model.sagas[saga_id]
        status, body = fetch(process.port, f"/v1/sagas/{quote(saga_id)}")
        wrong = differences(answer(saga, saga.entries[-1]), body) if status == 200 else body
        return (saga_id, status, wrong) if wrong else None
    with ThreadPoolExecutor(threads) as pool:
        wrong = [found for found in pool.map(ask, sorted(s for s, saga in model.sagas.items() if saga.entries)) if found]
    assert not wrong, f"{len(wrong)} newest states differ; the first: " + "\n".join(map(str, wrong[:3]))


def never_wrong(model, saga_id, body):
    """An answer given in the middle of trouble: older than the log it may be, but right, and true about how far it is complete."""
    saga = model.sagas[saga_id]
    sequence = int(body["entry"]["sequence"])
    assert sequence <= len(saga.entries), f"{saga_id} has entry {sequence}, the log only {len(saga.entries)}"
    wrong = differences(answer(saga, saga.entries[sequence - 1]), body)
    assert not wrong, f"{saga_id} at entry {sequence}: {wrong}"
    # A record gets its time a moment before a reader of the end can see it.
    complete = times.parse(body["complete_through"]) - 20_000
    missing = [e.sequence for e in saga.entries[sequence:] if e.record.timestamp < complete]
    assert not missing, f"{saga_id}: complete through {body['complete_through']}, but entries {missing[:5]} are not in the answer"


def archive_equals_log(world, model):
    """Every entry once in the cold store, as the model has it, and nothing else; any Parquet reader sees it."""
    rows = world.archive.rows(world.events)
    counted = Counter({position: len(copies) for position, copies in rows.items()})
    expected = Counter({position: 1 for position in world.accepted(model)})
    missing, extra = expected - counted, counted - expected
    assert not missing and not extra, f"{len(missing)} entries are not in the archive ({sorted(missing)[:5]}), {len(extra)} are too often or wrong ({sorted(extra)[:5]})"
    for saga_id, saga in model.sagas.items():
        for entry in saga.entries:
            row, = rows[(entry.record.partition, entry.record.offset)]
            found = (row["saga_id"], row["sequence"], row["kind"], row["status"], row["event_id"], micros(row["effective_time"]), micros(row["recorded_time"]))
            event = entry.record.event
            assert found == (saga_id, entry.sequence, event["kind"], entry.state["status"], event["event_id"], entry.effective, entry.record.timestamp)


def micros(moment):
    return times.parse(moment.isoformat())


def dead_letters(world):
    """[(topic, partition, offset, code, message)] of the dead-letter topic."""
    letters = []
    for message in world.log.read(world.dead_letters):
        headers = dict(message.headers() or [])
        place = [headers[f"__connect.errors.{name}"].decode() for name in ("topic", "partition", "offset")]
        letters.append((place[0], int(place[1]), int(place[2]), headers["resaga-code"].decode(), message))
    return letters


def log_records(world):
    """{replay id: the newest record} of the replay log, as a `read_committed` reader sees it."""
    return {message.key().decode(): loads(message.value().decode()) for message in world.log.read(world.replay_log) if message.value()}


def await_log(world, replay_ids, within=90, waiting=("accepted",)):
    """Waits until each of these has a record in the log that is not just waiting."""
    wanted = set(replay_ids)

    def done():
        known = log_records(world)
        missing = [r for r in wanted if r not in known or known[r]["status"] in waiting]
        if missing:
            raise AssertionError(f"{len(missing)} of {len(wanted)} replays without a result, such as {sorted(missing)[:3]}")
        return known
    return wait_for("results of all replays", done, within, every=0.5)


def replayed_exactly_once(world, requests):
    """Each (request id, saga id) has exactly one restored saga, one SAGA_RESTORED and one record `published` (or later)."""
    expected = Counter({replay_id(request["request_id"], request["saga_id"]): 1 for request in requests})
    published = Counter(loads(m.value().decode())["replay_id"] for m in world.log.read(world.restored))
    assert published == expected, f"missing {list((expected - published))[:5]}, too many {(published - expected)}"
    started = Counter()
    for message in world.log.read(world.events):
        if b'"SAGA_RESTORED"' in message.value():
            started[loads(message.value().decode())["event_id"]] += 1
    assert started == expected, f"SAGA_RESTORED: missing {list((expected - started))[:5]}, too many {(started - expected)}"
    known = log_records(world)
    refused = {r: known.get(r, {}).get("status") for r in expected if known.get(r, {}).get("status") in (None, "accepted", "refused", "cancelled")}
    assert not refused, f"in the log: {list(refused.items())[:5]}"
