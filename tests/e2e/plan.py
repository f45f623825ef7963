"""What a replay request should become, from the text of docs/INTERFACE.md alone: the restored saga, or the code of the refusal."""

import copy
import uuid

import times
from jsontext import Number
from model import ENDS, merge

NAMESPACE = uuid.UUID("c7aac146-62d0-5ad4-9794-3efb7127c08a")
STEP_FACTS = {"STEP_STARTED", "STEP_COMPLETED", "STEP_FAILED", "STEP_SKIPPED"}


class Refused(Exception):
    """Its text is the code."""


def request_uuid(request_id):
    try:
        if len(request_id) == 36 and str(uuid.UUID(request_id)) == request_id.lower():
            return uuid.UUID(request_id)
    except ValueError:
        pass
    return uuid.uuid5(NAMESPACE, request_id)


def replay_id(request_id, saga_id):
    return str(uuid.uuid5(request_uuid(request_id), saga_id))


def new_saga_id(replay, saga_id):
    return str(uuid.uuid5(uuid.UUID(replay), saga_id))


def restored(saga, request, taken_at, already_replayed=False, max_depth=10):
    """`saga`: of the model, all its entries; `taken_at`: the request record's timestamp in microseconds."""
    if request.get("expires_at") and times.parse(request["expires_at"]) <= taken_at:
        raise Refused("expired")
    if saga is None or not saga.entries:
        raise Refused("saga_not_found")
    newest = saga.entries[-1].state
    if newest["status"] not in ENDS.values() and not request.get("allow_running"):
        raise Refused("saga_running")
    harmless = request.get("dry_run") or request.get("force_failure")
    if newest["status"] == "completed" and not (request.get("allow_completed") or harmless or request.get("mode") == "compensate"):
        raise Refused("saga_completed")
    if already_replayed and not (request.get("allow_repeat") or harmless):
        raise Refused("already_replayed")
    lineage = newest["lineage"] or {}
    depth = int(lineage.get("depth") or 0) + 1
    if depth > max_depth:
        raise Refused("too_deep")
    checkpoint = find(saga.entries, request["from"])
    state = copy.deepcopy(checkpoint.state)
    mode = request.get("mode") or "resume"

    resume = resume_steps(saga.entries, checkpoint, request["from"].get("step"), mode)
    resume_step = request["from"].get("step") if mode == "resume" else None
    if resume_step is None and resume:
        resume_step = resume[-1]
    compensated_since = [s for s in state["completed_steps"] if s in newest["compensated_steps"] and s not in resume]
    if compensated_since and mode == "resume":
        choice = request.get("if_compensated") or "refuse"
        if choice == "refuse":
            raise Refused("steps_compensated")
        if choice == "rerun":
            resume = compensated_since + resume
            resume_step = resume[0]
    forced = request.get("force_failure")
    if forced is True:
        forced = resume_step
        if forced is None:
            raise Refused("request_invalid")
    completed = [s for s in state["completed_steps"] if s not in resume]
    if mode == "compensate":
        completed = [s for s in reversed(state["completed_steps"]) if s not in state["compensated_steps"] and s not in newest["compensated_steps"]]
    replay = replay_id(request["request_id"], request["saga_id"])
    return {
        "saga_id": request.get("new_saga_id") or new_saga_id(replay, request["saga_id"]), "saga_name": state["saga_name"],
        "saga_version": request.get("saga_version") or state["saga_version"], "mode": mode, "resume_step": resume_step,
        "resume_step_index": step_index(saga.entries, resume_step), "resume_steps": resume, "completed_steps": completed,
        "skipped_steps": [s for s in state["skipped_steps"] if s not in resume], "compensated_steps": state["compensated_steps"],
        "compensated_since": compensated_since, "attempts": state["attempts"],
        "results": {s: value for s, value in state["results"].items() if s not in resume},
        "context": overridden(state["context"], request.get("override")), "force_failure": forced, "original_saga_id": request["saga_id"],
        "root_saga_id": lineage.get("root") or request["saga_id"], "depth": Number(depth), "replay_id": replay, "request_id": request["request_id"], "batch_id": None,
        "checkpoint": {"sequence": Number(checkpoint.sequence), "effective_time": times.text(checkpoint.effective), "position": {
            "topic": checkpoint.record.topic, "partition": Number(checkpoint.record.partition), "offset": Number(checkpoint.record.offset)}},
        "requested_by": request["requested_by"], "reason": request["reason"],
        "restored_at": times.text(max(taken_at, times.parse(request["not_before"]) if request.get("not_before") else 0)),
        "tenant": state["tenant"], "region": state["region"], "labels": {**state["labels"], **(request.get("labels") or {})},
    }


def find(entries, point):
    """The checkpoint's entry."""
    if "step" in point:
        step = point["step"]
        attempt = None if point.get("attempt") is None else str(point["attempt"])
        started = [e for e in entries if e.record.event["kind"] == "STEP_STARTED" and e.record.event.get("step") == step]
        if started:
            started = [e for e in started if attempt is None or str(e.state["attempts"][step]) == attempt]
            return newest_of(started)
        facts = [e for e in entries if e.record.event["kind"] in ("STEP_COMPLETED", "STEP_FAILED") and e.record.event.get("step") == step]
        return at_sequence(entries, newest_of(facts).sequence - 1)
    if "after_step" in point:
        return newest_of([e for e in entries if e.record.event["kind"] == "STEP_COMPLETED" and e.record.event["step"] == point["after_step"]])
    if "at" in point:
        return newest_of([e for e in entries if e.effective <= times.parse(point["at"])])
    if "sequence" in point:
        return at_sequence(entries, int(point["sequence"]))
    if "checkpoint" in point:
        return newest_of([e for e in entries if e.record.event["kind"] == "CHECKPOINT" and e.record.event["step"] == point["checkpoint"]])
    if "start" in point:
        starts = [e for e in entries if e.record.event["kind"] in ("SAGA_STARTED", "SAGA_RESTORED")]
        return newest_of(starts[:1])
    assert "latest" in point, point
    return entries[-1]


def newest_of(entries):
    if not entries:
        raise Refused("checkpoint_not_found")
    return entries[-1]


def at_sequence(entries, sequence):
    return newest_of([e for e in entries if e.sequence == sequence])


def resume_steps(entries, checkpoint, step, mode):
    if mode == "compensate":
        return []
    running = list(checkpoint.state["running_steps"])
    if step is not None:
        return [step] + [s for s in running if s != step]
    if running:
        return running
    if checkpoint.state["failed_steps"]:
        return list(checkpoint.state["failed_steps"])
    after = [e.record.event["step"] for e in entries[checkpoint.sequence:] if e.record.event["kind"] in STEP_FACTS]
    return after[:1]


def step_index(entries, step):
    if step is None:
        return None
    known = [e.record.event["step_index"] for e in entries
             if e.record.event.get("step") == step and e.record.event["kind"] != "CHECKPOINT" and e.record.event.get("step_index") is not None]
    return known[-1] if known else None


def overridden(context, override):
    if override is None:
        return context
    (kind, value), = override.items()
    if kind == "merge":
        return merge(context, value)
    if kind == "shallow":
        return {**context, **value}
    if kind == "replace":
        return value
    for operation in value:
        context = patched(context, operation)
    return context


def patched(context, operation):
    """One operation of RFC 6902 on a member at the top, which is all that the tests use."""
    context, name = dict(context), operation["path"][1:].replace("~1", "/").replace("~0", "~")
    assert operation["path"].count("/") == 1, operation
    if operation["op"] == "test":
        if name not in context or context[name] != operation["value"]:
            raise Refused("override_conflict")
    elif operation["op"] == "add":
        context[name] = operation["value"]
    elif name not in context:
        raise Refused("override_invalid")
    elif operation["op"] == "replace":
        context[name] = operation["value"]
    else:
        del context[name]
    return context
