"""The judge is judged: a check that cannot fail is a defect."""

import pytest

import generator
import times
from archive import Archive
from checks import never_wrong
from jsontext import Number, dumps, loads
from model import Model, Record, answer, differences, merge
from plan import Refused, restored
from sagas import Story, failed, replay

NOW = times.parse("2026-11-01T00:00:00Z")


def judged(stream, model=None):
    model = model or Model()
    for offset, (_, event) in enumerate(stream):
        model.read(Record("events", 0, offset, NOW + offset * 1_000, loads(dumps(event))))
    return model


def test_numbers_keep_their_text_and_objects_their_order():
    text = '{"b":1.10,"a":12345678901234567890,"c":[1e3,-0.0],"é":"\\u2028"}'
    assert dumps(loads(text)) == text.replace("\\u2028", "\u2028")
    assert loads("1.10") != loads("1.1")
    assert differences({"context": loads('{"a":1,"b":2}')}, {"context": loads('{"b":2,"a":1}')})


def test_times_are_read_to_the_microsecond_in_any_zone():
    assert times.text(times.parse("2026-01-10T11:00:00.0000019+01:00")) == "2026-01-10T10:00:00.000001Z"
    assert times.text(times.parse("2024-02-29T23:59:59-00:30")) == "2024-03-01T00:29:59.000000Z"


@pytest.mark.parametrize(("target", "patch", "expected"), [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"a": None}, {}), ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [1]}, {"a": {"b": None}}, {"a": {}}), ({}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}), ({"a": 1}, [1], [1])])
def test_merge_patches_are_those_of_the_rfc(target, patch, expected):
    assert merge(target, patch) == expected


def test_the_fold_of_a_failed_payment():
    saga = judged(failed("order-1").stream()).sagas["order-1"]
    state = answer(saga, saga.entries[-1])
    assert (state["status"], state["failed_step"], state["error"]["code"], state["completed_steps"]) == ("failed", "charge_payment", "TIMEOUT", ["reserve_inventory"])
    assert (state["running_steps"], dumps(state["context"]), state["anomalies"]) == ({}, '{"amount":99.50,"reserve_inventory":true}', [])
    assert state["snapshot"] == {"sequence": "6"} and state["folded"] == "0"
    assert saga.state_at(saga.entries[3].effective).sequence == 4 and saga.state_at(saga.entries[0].effective - 1) is None


def test_what_arrives_late_twice_or_after_the_end():
    story = Story("s").start().done("a").event("SAGA_COMPLETED")
    start, begun, done, end = (event for _, event in story.stream())
    late = {**done, "event_id": "late", "sequence": Number("9"), "occurred_at": begun["occurred_at"], "kind": "STEP_FAILED"}
    saga = judged([("s", e) for e in (start, begun, done, begun, end, late)]).sagas["s"]
    assert [e.anomalies for e in saga.entries] == [[], [], [], [], ["gap", "late", "after_end"]]
    assert len(saga.duplicates) == 1 and saga.entries[-1].state["status"] == "completed"
    assert list(saga.entries[-1].state["failed_steps"]) == ["a"]


def test_a_clock_ahead_is_set_back_and_a_missing_start_is_said():
    events = [{"event_id": "1", "saga_id": "s", "saga_name": "n", "kind": "CONTEXT_UPDATED", "occurred_at": "2027-01-01T00:00:00Z", "context_set": {"a": None}}]
    entry, = judged([("s", e) for e in events]).sagas["s"].entries
    assert entry.effective == NOW and sorted(entry.anomalies) == ["clock_ahead", "no_start"] and entry.state["context"] == {"a": None}


def test_a_plan_leaves_out_what_runs_again():
    saga = judged(failed("order-1").stream()).sagas["order-1"]
    plan = restored(saga, replay("order-1", override={"merge": {"token": "t"}}), NOW)
    assert (plan["resume_step"], plan["completed_steps"], plan["attempts"]["charge_payment"], plan["context"]["token"]) == ("charge_payment", ["reserve_inventory"], "1", "t")
    with pytest.raises(Refused, match="already_replayed"):
        restored(saga, replay("order-1"), NOW, already_replayed=True)


def test_the_generator_makes_every_kind_of_trouble():
    model = judged(generator.interleaved(1, generator.sagas(1, 300)))
    seen = {name for saga in model.sagas.values() for e in saga.entries for name in e.anomalies}
    assert seen == {"after_end", "clock_ahead", "gap", "late", "no_start", "out_of_order"}
    assert any(saga.duplicates for saga in model.sagas.values()) and any(saga.dead for saga in model.sagas.values())


def test_an_answer_that_hides_an_entry_or_bends_a_state_is_found():
    saga_id = "order-1"
    model = judged(failed(saga_id).stream())
    saga = model.sagas[saga_id]
    right = {**answer(saga, saga.entries[2]), "complete_through": times.text(saga.entries[2].record.timestamp)}
    never_wrong(model, saga_id, right)
    for changes in ({"complete_through": times.text(NOW + 10_000_000)}, {"completed_steps": []}, {"context": {"amount": Number("99.5")}}):
        with pytest.raises(AssertionError):
            never_wrong(model, saga_id, {**right, **changes})


def test_the_archive_reader_finds_a_segment_name():
    assert Archive.parse_name("bucket/prefix/l0/a.b.c/0/3/00000000000000000041.parquet") == ("a.b.c", 3, 41)
    assert Archive.parse_name("bucket/prefix/catalog/a/0/3/start.json") is None
