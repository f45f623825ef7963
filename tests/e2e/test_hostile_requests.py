"""Whatever is put on the requests topic is a refusal, a dead letter or a request that is carried out: never a stop, never silence."""

import copy
import random
import uuid

import pytest

import times
from checks import await_log, dead_letters, log_records
from jsontext import dumps, loads
from plan import replay_id
from sagas import failed, replay
from servers.process import wait_for

SEED = 90_210
WHO = {"requested_by": "ops@example.org", "reason": "INC-4412"}
FROM = {"from": {"step": "charge_payment"}}
HOSTILE = [None, True, 0, -1, 2**70, 1.5, "", "x" * 5_000, "\u0000", "\ud7ff\U0001f69a", [], {}, [[[[]]]], {"a": {"a": {"a": {}}}}, "2026-13-45T99:99:99Z", "../../x", "NaN"]


def valid(rng):
    """A request of each command, with a request id of its own."""
    far = times.text(times.now() + 10**13)
    commands = [
        ("REPLAY", {"saga_id": "order-0", **FROM, "override": {"merge": {"a": 1}}, "not_before": far, "labels": {"k": "v"}}),
        ("REPLAY", {"saga_id": "order-1", "from": {"at": times.text(times.now())}, "dry_run": True}),
        ("UNDO", {"saga_id": "order-0", "replay_id": str(uuid.uuid4())}),
        ("CANCEL", {"saga_id": "order-0", "replay_id": str(uuid.uuid4())}),
        ("BATCH", {"batch": {"saga_ids": ["order-0", "no such"], "overrides": {"order-0": {"merge": {}}}, "rate_per_second": 5, "max_failures": "50%", **FROM}}),
        ("BATCH", {"batch": {"selector": {"status": "failed", "saga_name": "nothing", "since": "2026-01-01T00:00:00Z"}, **FROM}}),
        *((f"BATCH_{what}", {"batch_id": str(uuid.uuid4())}) for what in ("PAUSE", "RESUME", "CANCEL", "UNDO", "RETRY_FAILED")),
        ("SCHEDULE", {"schedule": {"cron": "0 0 1 1 *", "zone": "Europe/Berlin", "saga_id": "order-0", **FROM}}),
        ("SCHEDULE", {"schedule": {"policy": {"on": {"saga_name": "nothing", "label": "a:b"}, "delay": "5m", "window": {"from": "06:00", "until": "22:00"}}}}),
        *((f"SCHEDULE_{what}", {"schedule_id": str(uuid.uuid4())}) for what in ("CANCEL", "ENABLE", "DISABLE")),
    ]
    name, members = rng.choice(commands)
    return {"request_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "command": name, **members, **WHO}


def key_of(request):
    name = request["command"]
    if name in ("BATCH", "SCHEDULE"):
        return request["request_id"]
    return request.get("saga_id") or request.get("batch_id") or request.get("schedule_id")


def places(value, at=()):
    yield at
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*at, name))


def put(value, at, new):
    for name in at[:-1]:
        value = value[name]
    value[at[-1]] = new


def drop(value, at):
    for name in at[:-1]:
        value = value[name]
    del value[at[-1]]


def mutant(rng):
    """(key, value) of a record that may be anything."""
    request = valid(rng)
    key = key_of(request)
    how = rng.randrange(7)
    if how < 3:
        for _ in range(rng.randrange(1, 3)):
            at = rng.choice([at for at in places(request) if at])
            put(request, at, copy.deepcopy(rng.choice(HOSTILE)))
    elif how == 3:
        drop(request, rng.choice([at for at in places(request) if at]))
    elif how == 4:
        key = rng.choice([None, b"", b"\xff\xfe", b"another", rng.randbytes(40)])
    text = dumps(request).encode()
    if how == 5:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + rng.randrange(3):]
    elif how == 6:
        text = rng.choice([text[:rng.randrange(len(text))], b"", b"\0\0\0\0\x07" + text, b"[" * 3_000, text * 2, None, rng.randbytes(rng.randrange(200))])
    return key.encode() if isinstance(key, str) else key, text


def is_repeat(value):
    """Under a request id that other mutants have, too: of those one is carried out."""
    try:
        request_id = loads(value.decode())["request_id"]
    except Exception:  # what it is nobody can say
        return False
    return request_id in [text for text in HOSTILE if isinstance(text, str)]


@pytest.mark.timeout(900)
def test_no_request_stops_the_worker_and_none_goes_without_an_answer(world):
    rng = random.Random(SEED)
    process = world.start(**{"replay.max_parked_requests": 20_000})
    for saga_id in ("order-0", "order-1", *(f"good-{number}" for number in range(60))):
        world.send(failed(saga_id).stream())
    world.await_caught_up()
    producer = world.log.producer
    good = []
    for number in range(10_000):
        key, value = mutant(rng)
        producer.produce(world.requests, value, key)
        if number % 170 == 0:
            good.append(replay(f"good-{len(good)}", allow_repeat=True))
            world.log.send(world.requests, good[-1]["saga_id"], good[-1])
    world.log.flush()
    sent = {(m.partition(), m.offset()): m for m in world.log.read(world.requests)}
    known = await_log(world, [replay_id(r["request_id"], r["saga_id"]) for r in good], within=180)
    assert {known[replay_id(r["request_id"], r["saga_id"])]["status"] for r in good} == {"published"}

    def answered():
        """By position; what was forwarded to the partition of its key is answered there."""
        records = log_records(world).values()
        answers = {(int(r["position"]["partition"]), int(r["position"]["offset"])) for r in records}
        answers |= {(partition, offset) for _, partition, offset, _, _ in dead_letters(world)}
        forwarded = {dict(m.headers() or []).get("resaga-forwarded-from") for m in world.log.read(world.requests)}
        places_forwarded = {f"{world.requests}[{partition}]@{offset}".encode() for partition, offset in sent} & forwarded
        silent = [at for at, m in sent.items() if at not in answers and f"{world.requests}[{at[0]}]@{at[1]}".encode() not in places_forwarded
                  and not is_repeat(m.value())]
        assert not silent, [(at, sent[at].key(), (sent[at].value() or b"")[:300]) for at in silent[:3]]
        return True
    wait_for("an answer to each", answered, 120, every=2)
    assert process.is_running() and process.get("/readyz").status == 200
    letters, refused = len(dead_letters(world)), sum(record["status"] == "refused" for record in log_records(world).values())
    print(f"{len(sent)} records: {letters} dead letters, {refused} refusals")
    assert min(letters, refused) > len(sent) / 20
