"""The judge: the fold of docs/INTERFACE.md, Topics, as naive as it can be written, from the text of that page alone.

Shares nothing with resaga. Takes the records of the log as any reader sees them, and says which become entries, which are
duplicates or dead letters, and what the state is after each entry.
"""

import copy
from dataclasses import dataclass, field

import times
from jsontext import Number

STEP_KINDS = {"STEP_STARTED", "STEP_COMPLETED", "STEP_SKIPPED", "STEP_FAILED", "STEP_COMPENSATED", "COMPENSATION_FAILED", "CHECKPOINT"}
ENDS = {"SAGA_COMPLETED": "completed", "SAGA_FAILED": "failed", "SAGA_COMPENSATED": "compensated", "SAGA_CANCELLED": "cancelled"}
KINDS = STEP_KINDS | set(ENDS) | {"SAGA_STARTED", "COMPENSATION_STARTED", "CONTEXT_UPDATED", "SAGA_RESTORED"}
SNAPSHOTS = {"STEP_STARTED", "STEP_COMPENSATED", "CHECKPOINT"} | set(ENDS)  # policy before_each_step
WINDOW = 64


@dataclass
class Record:
    """One record of the log; `timestamp` is Kafka's, in microseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    event: dict

    @property
    def position(self):
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset}


@dataclass
class Entry:
    sequence: int
    record: Record
    effective: int
    anomalies: list
    snapshot: bool
    state: dict  # after it


@dataclass
class Saga:
    entries: list = field(default_factory=list)
    duplicates: list = field(default_factory=list)  # positions
    dead: list = field(default_factory=list)  # (position, code)

    def state_at(self, when=None):
        """The last entry with effective time <= `when`: its state is the fold of all such entries, as effective times never go back."""
        found = None
        for entry in self.entries:
            if when is None or entry.effective <= when:
                found = entry
        return found


class Model:
    def __init__(self, max_clock_ahead=3_600_000_000):
        self.sagas = {}
        self.max_clock_ahead = max_clock_ahead

    def read(self, record):
        """Takes the next record of its partition; it must be a valid step event."""
        saga = self.sagas.setdefault(record.event["saga_id"], Saga())
        entries, event = saga.entries, record.event
        window = entries[-WINDOW:]
        sequence = None if event.get("sequence") is None else int(event["sequence"])
        seen = [int(e.record.event["sequence"]) for e in window if e.record.event.get("sequence") is not None]
        everseen = [int(e.record.event["sequence"]) for e in entries if e.record.event.get("sequence") is not None]
        if any(e.record.event["event_id"] == event["event_id"] for e in window) or (sequence is not None and sequence in seen):
            saga.duplicates.append(record.position)
            return
        anomalies = []
        if sequence is not None and everseen:
            if len(window) == WINDOW and seen and sequence < min(seen):
                saga.dead.append((record.position, "stale_sequence"))
                return
            if sequence <= max(everseen):
                anomalies.append("out_of_order")
            elif sequence > max(everseen) + 1:
                anomalies.append("gap")
        given = event.get("occurred_at")
        occurred = record.timestamp if given is None else times.parse(given)
        if occurred > record.timestamp + self.max_clock_ahead:
            occurred = record.timestamp
            anomalies.append("clock_ahead")
        effective = max([occurred] + [e.effective for e in entries[-1:]])
        if given is not None and effective > occurred and "clock_ahead" not in anomalies:
            anomalies.append("late")
        if not entries and event["kind"] not in ("SAGA_STARTED", "SAGA_RESTORED"):
            anomalies.append("no_start")
        before = copy.deepcopy(entries[-1].state) if entries else new_state(event, effective)
        if before["status"] in ENDS.values():
            anomalies.append("after_end")
        state = fold(before, event, occurred, effective)
        entries.append(Entry(len(entries) + 1, record, effective, anomalies, event["kind"] in SNAPSHOTS, state))


def new_state(event, effective):
    return {
        "saga_id": event["saga_id"], "saga_name": event["saga_name"], "saga_version": None, "status": "running", "running_steps": {}, "completed_steps": [],
        "skipped_steps": [], "compensated_steps": [], "failed_steps": {}, "end_error": None, "compensation_failed_step": None, "compensation_error": None,
        "attempts": {}, "results": {}, "context": {}, "started_at": effective, "ended_at": None, "tenant": None, "region": None, "labels": {}, "lineage": None,
    }


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge(target.get(name), value)
    return target


def full_error(error):
    if error is None:
        return None
    return {name: error.get(name) for name in ("code", "type", "message", "details")}


def add(steps, step):
    if step not in steps:
        steps.append(step)


def remove(steps, step):
    if step in steps:
        steps.remove(step)


def fold(state, event, occurred, effective):
    kind, step = event["kind"], event.get("step")
    was_end = state["status"] in ENDS.values()
    status, ended_at = state["status"], state["ended_at"]

    if event.get("context") is not None:
        state["context"] = event["context"]
    elif event.get("context_patch") is not None:
        state["context"] = merge(state["context"], event["context_patch"])
    elif event.get("context_set") is not None:
        state["context"] = {**state["context"], **event["context_set"]}

    if kind == "SAGA_STARTED":
        if state["lineage"] is None:
            status, ended_at = "running", None
        if event.get("lineage"):
            given = event["lineage"]
            state["lineage"] = {"parent": given.get("original_saga_id"), "root": given.get("root_saga_id"), **{
                name: given.get(name) for name in ("depth", "replay_id", "resume_step", "mode", "force_failure")}}
    elif kind == "STEP_STARTED":
        if status != "compensating":
            status = "running"
        ended_at = None
        state["running_steps"].pop(step, None)
        state["running_steps"][step] = event.get("step_index")
        state["failed_steps"].pop(step, None)
        state["end_error"] = None
        given = event.get("attempt")
        state["attempts"][step] = Number(given if given is not None else int(state["attempts"].get(step, 0)) + 1)
    elif kind == "STEP_COMPLETED":
        state["running_steps"].pop(step, None)
        state["failed_steps"].pop(step, None)
        remove(state["skipped_steps"], step)
        remove(state["compensated_steps"], step)
        add(state["completed_steps"], step)
        state["results"][step] = event.get("result")
    elif kind == "STEP_SKIPPED":
        state["running_steps"].pop(step, None)
        state["failed_steps"].pop(step, None)
        add(state["skipped_steps"], step)
    elif kind == "STEP_FAILED":
        state["running_steps"].pop(step, None)
        state["failed_steps"].pop(step, None)
        state["failed_steps"][step] = full_error(event.get("error"))
    elif kind == "COMPENSATION_STARTED":
        status, ended_at = "compensating", None
    elif kind == "STEP_COMPENSATED":
        status, ended_at = "compensating", None
        add(state["compensated_steps"], step)
    elif kind == "COMPENSATION_FAILED":
        status, ended_at = "compensating", None
        state["compensation_failed_step"] = step
        state["compensation_error"] = full_error(event.get("error"))
    elif kind in ENDS:
        status, ended_at = ENDS[kind], effective
        state["running_steps"] = {}
        if kind == "SAGA_FAILED" and step is not None:
            had = state["failed_steps"].pop(step, None)
            state["failed_steps"][step] = full_error(event.get("error")) or had
        if event.get("error") is not None:
            state["end_error"] = full_error(event["error"])
    elif kind == "SAGA_RESTORED":
        restored = event["restored"]
        status = "compensating" if restored["mode"] == "compensate" else "running"
        ended_at = None
        for name in ("saga_name", "saga_version", "completed_steps", "skipped_steps", "compensated_steps", "attempts", "results", "tenant", "region", "labels"):
            state[name] = copy.deepcopy(restored[name])
        if restored["mode"] == "compensate":
            state["completed_steps"].reverse()
        state.update(running_steps={}, failed_steps={}, end_error=None, compensation_failed_step=None, compensation_error=None)
        state["lineage"] = {"parent": restored["original_saga_id"], "root": restored["root_saga_id"], **{
            name: restored[name] for name in ("depth", "replay_id", "resume_step", "mode", "force_failure")}}

    if not (was_end and occurred <= state["ended_at"]):
        state["status"], state["ended_at"] = status, ended_at
    for name in ("saga_version", "tenant", "region", "labels"):
        if event.get(name) is not None:
            state[name] = event[name]
    return state


def last(members):
    return list(members.items())[-1] if members else (None, None)


def answer(saga, entry):
    """What `GET /v1/sagas/{id}` says of the state after `entry`, without `as_of`, `source` and `complete_through`."""
    state = {name: value for name, value in entry.state.items() if name != "end_error"}
    state["current_step"], state["step_index"] = last(entry.state["running_steps"])
    state["failed_step"], error = last(entry.state["failed_steps"])
    state["error"] = entry.state["end_error"] or error
    up_to = saga.entries[:entry.sequence]
    snapshots = [e.sequence for e in up_to if e.snapshot]
    state["snapshot"] = {"sequence": Number(snapshots[-1])} if snapshots else None
    state["folded"] = Number(entry.sequence - (snapshots[-1] if snapshots else 0))
    state["anomalies"] = sorted({name for e in up_to for name in e.anomalies})
    state["started_at"] = times.text(up_to[0].effective)
    state["ended_at"] = None if state["ended_at"] is None else times.text(state["ended_at"])
    state["updated_at"] = times.text(entry.effective)
    position = entry.record.position
    state["entry"] = {
        "sequence": Number(entry.sequence), "event_id": entry.record.event["event_id"], "kind": entry.record.event["kind"], "effective_time": times.text(entry.effective),
        "recorded_time": times.text(entry.record.timestamp),
        "position": {"topic": position["topic"], "partition": Number(position["partition"]), "offset": Number(position["offset"])}}
    return state


ORDERED = ("context", "running_steps", "failed_steps")


def differences(expected, got):
    """Names of the members in which an answer differs from the model, with both values."""
    found = {}
    for name, value in expected.items():
        other = got.get(name, "<missing>")
        if name == "anomalies" and isinstance(other, list):
            other = sorted(other)
        if value != other or (name in ORDERED and not same_order(value, other)):
            found[name] = (value, other)
    return found


def same_order(one, other):
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_order(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return all(same_order(a, b) for a, b in zip(one, other, strict=True))
    return True
