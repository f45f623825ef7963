"""Undo: a restored saga is asked once to compensate what it did itself, and the log says what came of it."""

import uuid

import times
from checks import await_log, log_records
from jsontext import Number, dumps, loads
from model import differences
from plan import new_saga_id, replay_id
from resaga import run
from sagas import Story, failed, replay
from servers.process import wait_for

WHO = {"requested_by": "ops@example.org", "reason": "wrong gateway"}
ABORTED = -6


def command_id(request_id, named):
    return str(uuid.uuid5(uuid.UUID(request_id), named))


def restored_sagas(world):
    return [loads(m.value().decode()) for m in world.log.read(world.restored)]


def undo_request(saga_id, named, **members):
    return {"request_id": str(uuid.uuid4()), "command": "UNDO", "saga_id": saga_id, "replay_id": named, **WHO, **members}


def replayed(world, process, *sagas):
    """Replays failed sagas; gives {saga: (replay id, new saga id)}."""
    requests = {}
    for saga_id in sagas:
        for _, event in failed(saga_id).stream():
            world.log.send(world.events, saga_id, event)
        requests[saga_id] = replay(saga_id)
    world.log.flush()
    for saga_id, request in requests.items():
        world.log.send(world.requests, saga_id, request)
    world.log.flush()
    ids = {saga_id: replay_id(request["request_id"], saga_id) for saga_id, request in requests.items()}
    await_log(world, ids.values())
    return {saga_id: (named, new_saga_id(named, saga_id)) for saga_id, named in ids.items()}


def run_to_the_end(world, saga_id, end="SAGA_COMPLETED"):
    """The restored saga's consumer: charges and ships."""
    story = Story(saga_id).done("charge_payment", "ship_order").event(end)
    # Its own counter begins behind SAGA_RESTORED, which has none.
    for event in story.events:
        world.log.send(world.events, saga_id, event)
    world.log.flush()


def compensate(world, saga_id, steps, end="SAGA_COMPENSATED"):
    story = Story(saga_id)
    story.events = [{}] * 10
    story.event("COMPENSATION_STARTED")
    for step in steps:
        story.event("STEP_COMPENSATED", step)
    story.event(end)
    for event in story.events[10:]:
        # As of now: the end that it follows is as new as the replay.
        world.log.send(world.events, saga_id, {name: value for name, value in event.items() if name != "occurred_at"})
    world.log.flush()


def until_status(world, named, status, within=60):
    return wait_for(f"status {status}", lambda: (r := log_records(world).get(named)) and r["status"] == status and r, within, every=0.2)


def expected(model, new, undo, asked_at, root):
    """From the judge's own state of the restored saga."""
    saga = model.sagas[new]
    state, last = saga.entries[-1].state, saga.entries[-1]
    began = next(n for n, e in enumerate(saga.entries) if e.record.event["kind"] == "SAGA_RESTORED")
    own = {e.record.event["step"] for e in saga.entries[began:] if e.record.event["kind"] == "STEP_COMPLETED"}
    return {
        "saga_id": new, "saga_name": state["saga_name"], "saga_version": state["saga_version"], "mode": "compensate", "resume_step": None,
        "resume_step_index": None, "resume_steps": [],
        "completed_steps": [s for s in reversed(state["completed_steps"]) if s in own and s not in state["compensated_steps"]],
        "skipped_steps": state["skipped_steps"], "compensated_steps": state["compensated_steps"], "compensated_since": [], "attempts": state["attempts"],
        "results": state["results"], "context": state["context"], "force_failure": None, "original_saga_id": root, "root_saga_id": root,
        "depth": Number(1), "replay_id": command_id(undo["request_id"], undo["replay_id"]), "request_id": undo["request_id"], "batch_id": None,
        "checkpoint": {"sequence": Number(last.sequence), "effective_time": times.text(last.effective), "position": {
            "topic": last.record.topic, "partition": Number(last.record.partition), "offset": Number(last.record.offset)}},
        "requested_by": undo["requested_by"], "reason": undo["reason"], "restored_at": asked_at, "tenant": None, "region": None, "labels": {}}


def test_a_replay_is_undone_once_and_the_log_says_so(world):
    process = world.start()
    made = replayed(world, process, "order-1", "order-2")
    for _, new in made.values():
        run_to_the_end(world, new)
    for named, _ in made.values():
        until_status(world, named, "completed")
    # Over the topic, twice the same.
    named, new = made["order-1"]
    undo = undo_request("order-1", named)
    for _ in range(2):
        world.request(undo)
    own = command_id(undo["request_id"], named)
    known = await_log(world, [own])
    assert (known[own]["status"], known[own]["command"], known[own]["mode"], known[own]["new_saga_id"]) == ("published", "UNDO", "compensate", new)
    record = until_status(world, named, "undoing")
    assert (record["undone_by"], record["outcome"]) == (own, "completed")
    asked = [(m, value) for m in world.log.read(world.restored) if (value := loads(m.value().decode()))["mode"] == "compensate"]
    assert len(asked) == 1 and asked[0][0].key().decode() == new
    taken = next(m.timestamp()[1] for m in world.log.read(world.requests) if b'"UNDO"' in m.value())
    want = expected(world.judge(), new, undo, times.text(taken * 1_000), "order-1")
    assert not differences(want, asked[0][1])
    assert asked[0][1]["completed_steps"] == ["ship_order", "charge_payment"], "reserve_inventory was the original's"
    # Nothing is replayed while it stands; what was undone no longer stands in the way.
    compensate(world, new, ["ship_order", "charge_payment"])
    record = until_status(world, named, "undone")
    assert record["outcome"] == "completed"
    again = replay("order-1")
    world.request(again)
    known = await_log(world, [replay_id(again["request_id"], "order-1")])
    assert known[replay_id(again["request_id"], "order-1")]["status"] == "published"
    # Over HTTP, and it fails.
    named, new = made["order-2"]
    answer = process.post(f"/v1/replays/{named}/undo", dumps(WHO))
    assert answer.status == 202 and set(answer.body) == {"request_id", "replay_id"}, answer.body
    until_status(world, named, "undoing")
    compensate(world, new, ["ship_order"], end="SAGA_FAILED")
    until_status(world, named, "undo_failed")
    second = process.post(f"/v1/replays/{named}/undo", dumps(WHO))
    assert (second.status, second.code) == (409, "request_invalid")
    tree = process.get("/v1/sagas/order-1/lineage").body
    assert len(tree["children"]) == 2, "an undo is no child"
    newest, undone = tree["children"]
    root = {name: value for name, value in tree.items() if name not in ("saga_id", "status", "depth", "children")}
    assert set(root.values()) == {None}, "nothing made the root"
    named, _ = made["order-1"]
    record = log_records(world)[named]
    same = {name: record[name] for name in ("outcome", "batch_id", "schedule_id", "undone_by", "mode", "executed_as", "requested_by", "reason")}
    assert {name: undone[name] for name in same} == same
    assert (undone["replay_id"], undone["replay_status"], undone["outcome"], undone["status"]) == (named, "undone", "completed", "compensated")
    assert (newest["replay_status"], newest["outcome"], newest["undone_by"]) == ("published", None, None)
    shown = run(["saga", "lineage", "order-1", "--dot", "--server", f"http://127.0.0.1:{process.port}"], world.settings)
    edges = [line.strip() for line in shown.stdout.splitlines() if "->" in line]
    assert shown.returncode == 0 and edges == ['n0 -> n1 [label="charge_payment"];', 'n0 -> n2 [label="charge_payment"];',
                                               'n2 -> n0 [label="undone", style=dashed, constraint=false];'], shown


def test_what_cannot_be_undone_is_refused_with_the_reason(world):
    process = world.start()
    made = replayed(world, process, "running", "nothing", "compensated", "fine")
    run_to_the_end(world, made["fine"][1])
    world.send(Story(made["running"][1]).done("charge_payment").stream())
    world.send(Story(made["nothing"][1]).event("SAGA_FAILED").stream())
    run_to_the_end(world, made["compensated"][1], "SAGA_FAILED")
    compensate(world, made["compensated"][1], ["charge_payment", "ship_order"])
    until_status(world, made["fine"][0], "completed")
    until_status(world, made["nothing"][0], "failed")
    until_status(world, made["compensated"][0], "compensated")
    dry = replay("fine", dry_run=True)
    world.request(dry)
    cases = {
        "running": (made["running"][0], "saga_running", "has not ended"), "nothing": (made["nothing"][0], "request_invalid", "nothing to undo"),
        "compensated": (made["compensated"][0], "request_invalid", "compensated"), "unknown": (str(uuid.uuid4()), "request_invalid", "no replay"),
        "fine": (made["running"][0], "request_invalid", "no replay"),
    }
    undos = {saga: undo_request(saga, named) for saga, (named, _, _) in cases.items()}
    for undo in undos.values():
        world.request(undo)
    known = await_log(world, [command_id(u["request_id"], u["replay_id"]) for u in undos.values()])
    for saga, (named, code, says) in cases.items():
        record = known[command_id(undos[saga]["request_id"], named)]
        assert (record["status"], record["code"]) == ("refused", code) and says in record["message"], (saga, record)
    assert all(value["mode"] == "resume" for value in restored_sagas(world))
    over_http = {"running": (409, "saga_running"), "nothing": (409, "request_invalid"), "compensated": (409, "request_invalid")}
    for saga, wanted in over_http.items():
        answer = process.post(f"/v1/replays/{made[saga][0]}/undo", dumps(WHO))
        assert (answer.status, answer.code) == wanted, saga
    assert process.post(f"/v1/replays/{uuid.uuid4()}/undo", dumps(WHO)).code == "replay_not_found"


def test_an_undo_sees_what_was_recorded_before_it_and_survives_a_restart(world):
    """Sent right behind the end of the restored saga, to a process that dies at each named point."""
    process = world.start("steady")
    sagas = [f"order-{n}" for n in range(20)]
    made = replayed(world, process, *sagas)
    points = ["replay.before_begin", "replay.after_produce", "replay.after_send_offsets", "replay.before_commit", "replay.after_commit"]
    process.terminate()
    undos = []
    for number, point in enumerate(points):
        process = world.launch("steady", **{"RESAGA_CRASH_AT": f"{point}:1"})
        for saga_id in sagas[number * 4:number * 4 + 4]:
            run_to_the_end(world, made[saga_id][1])
            undos.append(undo_request(saga_id, made[saga_id][0]))
            world.log.send(world.requests, saga_id, undos[-1])
        world.log.flush()
        assert process.exited_within(60) == ABORTED, f"{point} not reached\n{process.tail()}"
    process = world.start("steady")
    known = await_log(world, [command_id(u["request_id"], u["replay_id"]) for u in undos])
    assert {known[command_id(u["request_id"], u["replay_id"])]["status"] for u in undos} == {"published"}
    for undo in undos:
        until_status(world, undo["replay_id"], "undoing")
    asked = [value for value in restored_sagas(world) if value["mode"] == "compensate"]
    assert sorted(v["replay_id"] for v in asked) == sorted(command_id(u["request_id"], u["replay_id"]) for u in undos)
    assert {tuple(v["completed_steps"]) for v in asked} == {("ship_order", "charge_payment")}
