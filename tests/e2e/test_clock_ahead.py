"""Clocks that are wrong: of a process, and of whoever stamps records."""

import os
import subprocess
from pathlib import Path

import pytest

import times
from checks import archive_equals_log
from sagas import completed, failed
from servers.process import wait_for

FORTY_DAYS = 40 * 86_400


@pytest.fixture
def clock_ahead(tmp_path):
    """Settings of a process whose clock is 40 days ahead."""
    library = tmp_path / "clock_ahead.so"
    source = Path(__file__).with_name("clock_ahead.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD_SECONDS": str(FORTY_DAYS)}


def claims(process, saga_ids):
    """Every `complete_through` that states and searches give."""
    answers = [process.state(saga_id) for saga_id in saga_ids] + [process.get("/v1/sagas", limit=2), process.get("/v1/sagas", failed_step="charge_payment")]
    assert all(answer.status == 200 for answer in answers), answers
    return [times.parse(answer.body["complete_through"]) for answer in answers]


def test_a_clock_that_is_40_days_ahead_claims_nothing_more(make_world, tmp_path, clock_ahead):
    # S3 refuses what is signed in 40 days.
    world = make_world(**{"cold.url": f"file://{tmp_path}/archive"})
    sent = []

    def goes_on(process, count=12):
        """New sagas are in the answers, which are complete through their recording and not beyond now."""
        stories = [failed(f"s-{len(sent) + number}") for number in range(count)]
        world.send(event for story in stories for event in story.stream())
        recorded = max(m.timestamp()[1] for m in world.log.read(world.events)) * 1_000
        sent.extend(story.saga_id for story in stories)

        def right():
            through = claims(process, [sent[0], sent[-1]])
            assert max(through) <= times.now(), [times.text(at) for at in through]
            assert min(through) > recorded, [times.text(at) for at in through]
            return True
        wait_for("complete through the newest record", right, 20)

    # One instance after the other: none waits for the group to miss the one before.
    first = world.start("one")
    goes_on(first)
    first.terminate()
    wrong = world.start("one", **clock_ahead)
    goes_on(wrong)
    wrong.terminate()
    # Nothing that the wrong clock said is carried over: neither while nothing happens nor for new sagas.
    last = world.start("one")
    assert max(claims(last, sent)) <= times.now()
    goes_on(last)
    assert len(last.get("/v1/sagas", failed_step="charge_payment", limit=1_000).body["sagas"]) == len(sent)


def test_a_saga_with_a_timestamp_beyond_all_calendars_is_found_from_cold(make_world):
    world = make_world()
    world.log.delete([world.events])
    world.events += ".stamped"
    world.topics[0] = world.events
    world.log.create([world.events], world.partitions, **{"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": 2**63 - 1})
    world.settings["topics.events"] = world.events
    process = world.start()
    stamps = {"nanoseconds": times.now() * 1_000, "largest": 2**63 - 1, "usual": times.now() // 1_000}
    for saga_id, stamp in stamps.items():
        for event in failed(saga_id).events:
            event.pop("occurred_at")
            world.log.send(world.events, saga_id, event, timestamp=stamp)
    world.log.flush()
    world.await_caught_up()

    def found(**query):
        answer = process.get("/v1/sagas", **query)
        assert answer.status == 200, answer
        return sorted(saga["saga_id"] for saga in answer.body["sagas"])
    for _ in ("hot", "cold"):
        wait_for("found", lambda: found(failed_step="charge_payment") == sorted(stamps) == found(), 20)
        world.redis().flushdb()
        wait_for("read from cold", lambda: process.state("largest").body["source"] == "cold", 20)


def sequence(process, story):
    answer = process.state(story.saga_id)
    return int(answer.body["entry"]["sequence"]) if answer.status == 200 else None


def test_another_snapshot_policy_does_not_stop_sagas_in_flight(make_world):
    world = make_world(**{"cold.flush_interval": "1h", "snapshots.policy": "manual"})
    before = world.start("one")
    stories = [completed(f"s-{number}") for number in range(40)]
    half = [story.stream()[:5] for story in stories]
    world.send(pair for stream in half for pair in stream)
    wait_for("read", lambda: all(sequence(before, story) == 5 for story in stories), 20)
    before.kill()

    after = world.start("one", **{"snapshots.policy": "every_event"})

    def refolded():
        answers = [after.state(story.saga_id) for story in stories]
        assert all(answer.status == 200 for answer in answers), [answer for answer in answers if answer.status != 200][:1]
        assert all(answer.body["source"] == "hot" and int(answer.body["snapshot"]["sequence"]) == 5 for answer in answers)
        return True
    wait_for("folded again", refolded, 20)
    world.send(pair for story in stories for pair in story.stream()[5:])
    count = len(stories[0].events)
    wait_for("goes on", lambda: all(sequence(after, story) == count for story in stories), 20)
    assert len(after.get("/v1/sagas/s-7/history").body["entries"]) == count
    after.terminate()  # makes all of it durable
    last = world.start("one", **{"snapshots.policy": "every_event"})
    assert all(last.state(story.saga_id).body["source"] == "hot" for story in stories), "both folds are there, and the newer one is known"
    archive_equals_log(world, world.judge())
