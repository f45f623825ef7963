"""Guarantee 7: bad input never stops a partition and never vanishes."""

import hashlib
import os

from confluent_kafka import Producer

from checks import dead_letters, newest_states_equal_model
from jsontext import dumps
from sagas import Story, completed
from servers.process import wait_for

CANARY = "canary-5f1d"
MAX_RECORD = 65_536


def good(**changes):
    event = {"event_id": "e", "saga_id": "bad-1", "saga_name": CANARY, "kind": "STEP_STARTED", "step": "charge", "occurred_at": "2026-01-10T10:00:00Z", **changes}
    return {name: value for name, value in event.items() if value is not ...}


def raw(**changes):
    return dumps(good(**changes)).encode()


def deep(levels):
    return raw(context={"a": "@"}).replace(b'"@"', b"[" * levels + b"]" * levels)


RESTORED = dict(kind="SAGA_RESTORED", step=..., context={})
TABLE = [
    # what, key, value, code
    ("too large", "bad-1", raw(context={"x": CANARY * 10_000}), "too_large"),
    ("too large comes before undecodable", "bad-1", b"{" + b"x" * 100_000, "too_large"),
    ("SAGA_RESTORED may be four times as large", "bad-1", raw(**{**RESTORED, "context": {"x": "y" * 150_000}}), "invalid_event"),
    ("SAGA_RESTORED over that", "bad-1", raw(**{**RESTORED, "context": {"x": "y" * 300_000}}), "too_large"),
    ("no value", "bad-1", None, "undecodable"),
    ("empty value", "bad-1", b"", "undecodable"),
    ("not JSON", "bad-1", b"{" + CANARY.encode(), "undecodable"),
    ("cut off", "bad-1", raw()[:-1], "undecodable"),
    ("more after the end", "bad-1", raw() + b"{}", "undecodable"),
    ("an array", "bad-1", b"[" + raw() + b"]", "undecodable"),
    ("text", "bad-1", CANARY.encode(), "undecodable"),
    ("not UTF-8", "bad-1", raw(context={"x": "@"}).replace(b"@", b"\xff\xfe"), "undecodable"),
    ("a lone surrogate", "bad-1", raw(context={"x": "@"}).replace(b"@", b"\\ud800"), "undecodable"),
    ("nested too deep", "bad-1", deep(130), "undecodable"),
    ("Avro without a registry", "bad-1", b"\x00\x00\x00\x00\x07" + CANARY.encode(), "unknown_schema"),
    *[(f"no {name}", "bad-1", raw(**{name: ...}), "invalid_event") for name in ("event_id", "saga_id", "saga_name", "kind")],
    *[(f"{name} is null", "bad-1", raw(**{name: None}), "invalid_event") for name in ("event_id", "saga_id", "saga_name", "kind")],
    *[(f"empty {name}", "bad-1", raw(**{name: ""}), "invalid_event") for name in ("event_id", "saga_id", "saga_name", "step")],
    *[(f"{kind} without a step", "bad-1", raw(kind=kind, step=...), "invalid_event")
      for kind in ("STEP_STARTED", "STEP_COMPLETED", "STEP_SKIPPED", "STEP_FAILED", "STEP_COMPENSATED", "COMPENSATION_FAILED", "CHECKPOINT")],
    ("unknown kind", "bad-1", raw(kind="STEP_" + CANARY), "invalid_event"),
    ("a kind in lower case", "bad-1", raw(kind="step_started"), "invalid_event"),
    ("saga_name is a number", "bad-1", raw(saga_name=5), "invalid_event"),
    ("step is an object", "bad-1", raw(step={}), "invalid_event"),
    ("step_index 2.0", "bad-1", raw(step_index=2.0), "invalid_event"),
    ("step_index as text", "bad-1", raw(step_index="2"), "invalid_event"),
    ("a negative sequence", "bad-1", raw(sequence=-1), "invalid_event"),
    ("labels with a number", "bad-1", raw(labels={"a": 1}), "invalid_event"),
    ("error is text", "bad-1", raw(kind="STEP_FAILED", error=CANARY), "invalid_event"),
    ("a time without zone", "bad-1", raw(occurred_at="2026-01-10T10:00:00"), "invalid_event"),
    ("a time that is a number", "bad-1", raw(occurred_at=1_768_000_000), "invalid_event"),
    ("a day that is none", "bad-1", raw(occurred_at="2026-02-30T10:00:00Z"), "invalid_event"),
    ("context is an array", "bad-1", raw(context=[CANARY]), "invalid_event"),
    ("context_patch is text", "bad-1", raw(context_patch=CANARY), "invalid_event"),
    ("context_set is a number", "bad-1", raw(context_set=1), "invalid_event"),
    ("context and context_set", "bad-1", raw(context={}, context_set={}), "invalid_event"),
    ("context_patch and context_set", "bad-1", raw(context_patch={}, context_set={}), "invalid_event"),
    ("a saga id of 257 characters", "ä" * 257, raw(saga_id="ä" * 257), "invalid_event"),
    ("SAGA_RESTORED without restored", "bad-1", raw(**RESTORED), "invalid_event"),
    ("SAGA_RESTORED of another saga", "bad-1", raw(**RESTORED, restored={"saga_id": "other"}), "invalid_event"),
    ("another key", "bad-2", raw(), "key_mismatch"),
    ("no key", None, raw(), "key_mismatch"),
    ("invalid comes before key", "bad-2", raw(kind="x"), "invalid_event"),
]
HEADERS = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b""), ("none", None), ("ключ", "значение".encode())]


def test_every_kind_of_bad_record_is_a_dead_letter_with_untouched_bytes(make_world):
    world = make_world(**{"limits.max_record": "64KiB"})
    process = world.start()
    sent = {}
    good_sagas = [event for number in range(60) for event in completed(f"good-{number}").stream()]
    for index, (what, key, value, code) in enumerate(TABLE):
        for saga_id, event in good_sagas[index * 10:index * 10 + 10]:
            world.log.send(world.events, saga_id, event)
        world.log.send(world.events, key, value, headers=[("what", what.encode()), *HEADERS], partition=index % world.partitions)
        sent[what] = (key, value, code)
    world.send(good_sagas[len(TABLE) * 10:])

    def all_there():
        letters = dead_letters(world)
        return letters if len(letters) >= len(TABLE) else None
    wait_for("dead letters", all_there, 60)
    world.await_caught_up()
    letters = dead_letters(world)
    originals = {(m.partition(), m.offset()): m for m in world.log.read(world.events)}

    wrong, seen = [], {}
    for topic, partition, offset, code, letter in letters:
        original = originals[(partition, offset)]
        headers = letter.headers()
        what = dict(original.headers() or [("what", b"a good one")])["what"].decode()
        seen[what] = seen.get(what, 0) + 1
        expected_key, expected_value, expected_code = sent.get(what, (None, None, None))
        if code != expected_code:
            wrong.append(f"{what}: code {code}, expected {expected_code}")
        if topic != world.events or letter.key() != original.key() or letter.value() != original.value():
            wrong.append(f"{what}: key, value or topic were touched")
        if headers[:len(original.headers() or [])] != original.headers():
            wrong.append(f"{what}: headers {headers}")
        added = dict(headers[len(original.headers() or []):])
        if not added.get("__connect.errors.stage") or not added.get("__connect.errors.exception.message"):
            wrong.append(f"{what}: stage or message is missing: {sorted(added)}")
        if any(CANARY.encode() in (value or b"") for value in added.values()):
            wrong.append(f"{what}: a header quotes a value: {added}")
    missing = [what for what in sent if what not in seen]
    assert not wrong and not missing and set(seen.values()) == {1}, "\n".join([*wrong, f"missing: {missing}", f"counts: {[w for w, n in seen.items() if n > 1]}"])

    dead = {(partition, offset) for _, partition, offset, _, _ in letters}
    newest_states_equal_model(process, world.judge(skip=dead))
    assert process.state("bad-1").code == "saga_not_found"


def test_good_records_among_bad_ones_are_not_delayed(world):
    process = world.start()
    for number in range(2_000):
        if number % 100 == 50:
            world.log.send(world.events, f"bad-{number}", b"{not json")
        for saga_id, event in Story(f"s-{number}").start().stream():
            world.log.send(world.events, saga_id, event)
    world.log.flush()
    dead = {(m.partition(), m.offset()) for m in world.log.read(world.events) if m.value() == b"{not json"}
    model = world.judge(skip=dead)
    process.await_event(model, "s-1999", within=30)
    world.await_caught_up()
    newest_states_equal_model(process, model)
    assert {(p, o) for _, p, o, _, _ in dead_letters(world)} == dead


def test_a_sequence_below_all_that_are_remembered_is_a_dead_letter(world):
    process = world.start()
    story = Story("long").start()
    for _ in range(80):
        story.event("CONTEXT_UPDATED", context_set={"n": 1})
    stale = {**story.events[2], "event_id": "another"}
    world.send([*story.stream(), ("long", stale)])
    world.await_caught_up()
    model = world.judge()
    (position, code), = model.sagas["long"].dead
    (topic, partition, offset, found, _), = dead_letters(world)
    assert (topic, partition, offset, found) == (position["topic"], position["partition"], position["offset"], code)
    newest_states_equal_model(process, model)


def test_a_dead_letter_that_no_topic_takes_is_written_cut_and_holds_up_nothing(world):
    """70 MiB of one letter are a few kilobytes on the wire: more than our producer takes, unpacked."""
    process = world.start()
    world.send(completed("before").stream())
    large = Producer({"bootstrap.servers": world.servers["kafka"], "compression.type": "zstd", "message.max.bytes": 100_000_000, "partitioner": "murmur2_random"})
    value = b"x" * (70 << 20)
    large.produce(world.events, value, b"large", headers=[("trace", b"1")])
    assert large.flush(60) == 0
    world.send(completed("after").stream())
    (topic, partition, offset, code, letter), = wait_for("the dead letter", lambda: dead_letters(world), 30)
    headers = dict(letter.headers())
    assert (code, letter.key(), headers["trace"], headers["resaga-cut"]) == ("too_large", b"large", b"1", b"value")
    assert int(headers["resaga-full-size"]) == len(value) + len(b"large") + len("trace1")
    assert headers["resaga-sha256"].decode() == hashlib.sha256(value).hexdigest() and set(letter.value()) == {ord("x")}
    world.await_caught_up(30)
    newest_states_equal_model(process, world.judge(skip={(partition, offset)}))
    metrics = process.metrics()
    assert sum(value for name, value in metrics.items() if name.startswith("resaga_dead_letters_cut_total")) == 1
    assert "running it again" not in process.tail(200)


def test_a_dead_letter_topic_that_takes_hardly_anything_gets_what_it_takes(world):
    world.dead_letters = f"tiny.{world.id}"
    world.log.create([world.dead_letters], world.partitions, **{"max.message.bytes": 2_048})
    world.topics.append(world.dead_letters)
    world.settings["topics.dead_letters"] = world.dead_letters
    process = world.start()
    value = b"{" + os.urandom(50_000).hex().encode()
    world.log.send(world.events, "large", value, headers=[("trace", b"1")])
    world.log.send(world.events, "small", b"{", headers=[("trace", b"2")])
    world.send(completed("good").stream())
    letters = wait_for("both dead letters", lambda: len(found := dead_letters(world)) == 2 and found, 30)
    cut = {letter.key() or letter.value(): dict(letter.headers()) for *_, letter in letters}
    assert cut[b"small"].get("resaga-cut") is None and cut[b"small"]["trace"] == b"2"
    assert cut[b""]["resaga-cut"] == b"key,value,headers" and cut[b""]["resaga-sha256"].decode() == hashlib.sha256(value).hexdigest()
    world.await_caught_up(30)
    newest_states_equal_model(process, world.judge(skip={(p, o) for _, p, o, _, _ in letters}))
