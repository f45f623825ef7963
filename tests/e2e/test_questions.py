"""Questions over many sagas: counts in groups, what is repaired, what is stuck; before and after Redis lost everything."""

import random
from collections import Counter

from checks import await_log
from jsontext import dumps, loads
from model import answer
from plan import new_saga_id, replay_id
from resaga import run
from sagas import Story, completed, failed, replay
from servers.process import wait_for

NAMES = ["order-processing", "refund"]


def some_sagas(rng, count):
    for number in range(count):
        story = Story(f"saga-{number}", name=rng.choice(NAMES)).start()
        match rng.randrange(4):
            case 0:
                story.done("reserve_inventory").event("SAGA_COMPLETED")
            case 1:
                story.broken("charge_payment", rng.choice(["TIMEOUT", "DECLINED"])).event("SAGA_FAILED", "charge_payment")
            case 2:
                story.broken("reserve_inventory", "EMPTY")
            case 3:
                story.done("reserve_inventory")
        yield story


def listed(process, **query):
    found, after = set(), None
    while True:
        page = process.get("/v1/sagas", limit=1000, after=after, **query)
        assert page.status == 200, page.body
        found |= {saga["saga_id"] for saga in page.body["sagas"]}
        after = page.body["next"]
        if after is None:
            return found


def test_counts_are_those_of_the_model_in_every_grouping(world):
    process = world.start()
    stories = list(some_sagas(random.Random(7), 200))
    for story in stories:
        for _, event in story.stream():
            world.log.send(world.events, story.saga_id, event)
    world.log.flush()
    world.await_caught_up()
    newest = [answer(saga, saga.entries[-1]) for saga in world.judge().sagas.values()]
    of = {"saga_name": lambda s: s["saga_name"], "status": lambda s: s["status"], "failed_step": lambda s: s["failed_step"],
          "error_code": lambda s: (s["error"] or {}).get("code"), "error_type": lambda s: (s["error"] or {}).get("type")}

    def right():
        for by in (["status"], ["saga_name", "status"], ["failed_step", "error_code"], ["error_type"]):
            expected = Counter(tuple(of[name](state) for name in by) for state in newest)
            counted = process.get("/v1/counts", by=by)
            assert counted.status == 200, counted.body
            assert {tuple(g[name] for name in by): int(g["count"]) for g in counted.body["groups"]} == expected, by
            counts = [int(g["count"]) for g in counted.body["groups"]]
            assert counts == sorted(counts, reverse=True) and int(counted.body["total"]) == len(newest) == sum(counts)
        only = process.get("/v1/counts", status="failed", failed_step="charge_payment").body
        assert (int(only["total"]), only["groups"]) == (sum(s["status"] == "failed" for s in newest), [])
    right()
    world.redis().flushdb()
    right()
    assert process.get("/v1/counts", by="tenant").code == "request_invalid"
    shown = run(["saga", "count", "--by", "status", "-o", "csv", "--server", f"http://127.0.0.1:{process.port}"], world.settings)
    rows = dict(line.split(",") for line in shown.stdout.splitlines()[1:])
    assert shown.returncode == 0 and {status: int(n) for status, n in rows.items()} == Counter(s["status"] for s in newest)


def test_what_is_not_repaired_yet_is_found(world):
    process = world.start()
    ids = [f"order-{n}" for n in range(8)]
    for saga_id in ids:
        world.send(failed(saga_id).stream())

    def again(saga_id):
        request = replay(saga_id, {"latest": True}, allow_running=True)
        world.request(request)
        named = replay_id(request["request_id"], saga_id)
        await_log(world, [named])
        return new_saga_id(named, saga_id)

    def end(saga_id, kind):
        world.log.send(world.events, saga_id, {"event_id": f"{saga_id}/end", "saga_id": saga_id, "saga_name": "order-processing", "kind": kind})
        world.log.flush()
    end(again("order-0"), "SAGA_COMPLETED")
    failed_again = again("order-1")
    end(failed_again, "SAGA_FAILED")
    end(again(failed_again), "SAGA_COMPLETED")
    end(again("order-2"), "SAGA_FAILED")
    again("order-3")

    def right():
        query = {"failed_step": "charge_payment", "depth": "0"}
        assert listed(process, repaired="yes", **query) == {"order-0", "order-1"}
        assert listed(process, repaired="no", **query) == set(ids[2:])
        assert listed(process, repaired="no", status="failed") >= set(ids[2:])
        return True
    wait_for("what is repaired", right, 30, every=0.5)
    world.await_caught_up()
    world.redis().flushdb()
    wait_for("the same from the archive", right, 30, every=0.5)
    assert process.get("/v1/sagas", repaired="maybe").code == "request_invalid"
    # As the selector of a batch: what is repaired is left alone, what was replayed and failed is not refused.
    planned = process.post("/v1/batches", dumps({"batch": {"selector": {"repaired": "no", "failed_step": "charge_payment", "depth": 0, "status": "failed"},
                                                          "from": {"latest": True}, "dry_run": True}, "requested_by": "a", "reason": "b"}))
    verdicts = {row["saga_id"]: row["code"] for row in planned.body["sagas"]}
    assert verdicts == {"order-3": "already_replayed", **{saga_id: None for saga_id in ids[2:] if saga_id != "order-3"}}, planned.body


def test_a_saga_is_stuck_once_it_rests_longer_than_it_may(world):
    process = world.start(**{"stuck.after": "4s", "stuck.saga.REFUND.after": "1h"})
    world.send(Story("rests").start().done("reserve_inventory").stream())
    world.send(Story("compensates").start().broken("charge_payment").event("COMPENSATION_STARTED").stream())
    world.send(Story("slow", name="REFUND").start().stream())
    world.send([*failed("ended").stream(), *completed("done").stream()])
    mover = Story("moves").start()
    world.send(mover.stream())
    assert listed(process, stuck="true") == set(), "none rests that long yet"

    def moved():
        mover.event("CONTEXT_UPDATED", context_set={"n": len(mover.events)})
        world.log.send(world.events, "moves", mover.events[-1])
        world.log.flush()
        found = listed(process, stuck="true")
        assert "moves" not in found
        return found == {"rests", "compensates"} or None
    wait_for("those that rest", moved, 30, every=0.5)
    assert int(process.get("/v1/counts", stuck="true").body["total"]) == 2
    world.send(Story("rests").event("CONTEXT_UPDATED", context_set={"x": True}, event_id="again", sequence=None).stream())
    wait_for("it goes on", lambda: listed(process, stuck="true") == {"compensates"} or None, 3, every=0.1)
    assert loads(dumps(process.get("/v1/sagas", stuck="maybe").body))["code"] == "request_invalid"


def test_the_gauge_of_stuck_sagas_adds_up_over_processes_and_restarts(world):
    # The stories are of long ago.
    settings = {"stuck.after": "4s", "stuck.saga.REFUND.after": "1h", "hot.ttl": "3650d"}
    processes = [world.start(**settings)]

    def gauge():
        found = Counter()
        for process in processes:
            for name, value in process.metrics().items():
                if name.startswith("resaga_stuck_sagas{"):
                    found[name.split('"')[1]] += int(value)
        return found
    rest = [Story(f"rests-{n}").start().done("reserve_inventory") for n in range(6)]
    for story in [*rest, Story("shipment-1", name="shipment").start(), Story("slow", name="REFUND").start()]:
        world.send(story.stream())
    world.send([*failed("ended").stream(), *completed("done").stream()])
    expected = {"order-processing": 6, "shipment": 1}
    wait_for("stuck sagas are counted", lambda: gauge() == expected, 40, every=0.5)
    assert int(processes[0].get("/v1/counts", stuck="true").body["total"]) == 7
    # Others, which never saw them move, learn of them from history.
    processes.pop().terminate()
    world.redis().flushdb()
    processes += [world.start(**settings), world.start(**settings)]
    wait_for("both of them own partitions", lambda: all(p.metrics().get('resaga_consumer_assigned_partitions{role="materialize"}') for p in processes), 40, every=0.5)
    wait_for("their sum is the same", lambda: gauge() == expected, 40, every=0.5)
    for story in rest[:2]:
        world.send(list(story.event("SAGA_COMPLETED").stream())[-1:])

    def while_one_moves():
        world.send(list(rest[2].event("CONTEXT_UPDATED", context_set={"n": len(rest[2].events)}).stream())[-1:])
        return gauge() == {"order-processing": 3, "shipment": 0}
    world.send([("shipment-1", {"event_id": "end", "saga_id": "shipment-1", "saga_name": "shipment", "kind": "SAGA_FAILED"})])
    wait_for("what moves or ended is not stuck", while_one_moves, 20, every=1)
    wait_for("it rests again", lambda: gauge()["order-processing"] == 4, 20, every=0.5)
