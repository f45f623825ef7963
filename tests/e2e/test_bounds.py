"""What one input can cost: memory, storage and time are bounded by what was sent, and nothing else has to wait."""

import threading
import time

from pyarrow.fs import FileSelector

from checks import newest_states_equal_model
from jsontext import dumps
from sagas import Story, replay
from servers.process import wait_for

MIB = 1 << 20


def peak_memory(process):
    """Bytes, the most it ever had."""
    with open(f"/proc/{process.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def stored_bytes(world):
    files = world.archive.files.get_file_info(FileSelector(world.archive.root, recursive=True, allow_not_found=True))
    return sum(info.size or 0 for info in files)


class Watch:
    """Asks /livez all the time; `longest` is the slowest answer."""

    def __init__(self, process):
        self.process, self.longest, self.ended = process, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.ended.is_set():
            began = time.monotonic()
            assert self.process.get("/livez", timeout=120).status == 200
            self.longest = max(self.longest, time.monotonic() - began)
            self.ended.wait(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def test_small_patches_of_a_large_context_cost_what_was_sent(world):
    """2 MiB that do not compress, and 300 patches of 50 bytes as a backlog: whole texts would be 600 MiB in memory, and in S3."""
    import random
    noise = random.Random(17)
    story = Story("order-1").start()
    for part in "ab":
        story.event("CONTEXT_UPDATED", context_set={part: noise.randbytes(480_000).hex()})
    for number in range(300):
        story.event("CONTEXT_UPDATED", context_patch={"n": f"{number}", f"k{number % 7}": "x" * 20})
    world.send(story.stream())
    process = world.start()
    world.await_caught_up()
    used = peak_memory(process)
    assert used < 350 * MIB, f"{used / MIB:.0f} MiB of memory"
    stored = stored_bytes(world)
    assert stored < 20 * MIB, f"{stored / MIB:.0f} MiB in S3"

    model = world.judge()
    newest_states_equal_model(process, model)
    world.redis().flushdb()
    reader = world.start(roles="api", **{"hot.url": "memory://"})
    newest_states_equal_model(reader, model)
    page = reader.get("/v1/sagas/order-1/history", limit=1)
    assert (page.status, len(page.body["entries"])) == (200, 1)
    last = reader.get("/v1/sagas/order-1/history", after=page.body["next"], limit=1000).body
    assert 1 <= len(last["entries"]) < 300 and last["next"], "a page ends early where much is compared"
    used = peak_memory(reader)
    assert used < 350 * MIB, f"{used / MIB:.0f} MiB of memory to read it"


def test_a_long_history_and_a_long_patch_hold_nothing_up(world):
    length = 20_000
    process = world.start()
    story = Story("order-1").start(list=[0] * 300_000)
    for number in range(length):
        story.event("CONTEXT_UPDATED", attempt=number)
    story.event("SAGA_FAILED")
    world.send(story.stream())
    world.await_caught_up()

    def ask(path, **query):
        began = time.monotonic()
        answer = process.get(path, timeout=120, **query)
        assert answer.status == 200, answer.body
        return time.monotonic() - began

    with Watch(process) as watch:
        ask("/v1/sagas/order-1", sequence=5)
        ask("/v1/sagas", status="failed")
        asking = [threading.Thread(target=ask, args=("/v1/sagas/order-1/history",), kwargs={"limit": 1}) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        inserts = [{"op": "add", "path": "/list/0", "value": 1}] * 4_000
        began = time.monotonic()
        refused = process.post("/v1/replays", dumps(replay("order-1", {"latest": True}, override={"patch": inserts})).encode(), timeout=120)
        assert (refused.status, refused.code) == (422, "override_invalid"), refused.body
        assert "work" in refused.body["detail"] and time.monotonic() - began < 20
    assert watch.longest < 2, f"/livez took {watch.longest:.1f} s"


def test_a_patch_that_takes_too_much_is_refused_from_the_topic_too(world):
    process = world.start()
    world.send(Story("order-1").start(list=[0] * 300_000).event("SAGA_FAILED").stream())
    world.await_caught_up()
    request = replay("order-1", {"latest": True}, override={"patch": [{"op": "add", "path": "/list/0", "value": 1}] * 4_000})
    world.request(request)

    def refused():
        found = process.get("/v1/replays", request_id=request["request_id"]).body["replays"]
        return [record["code"] for record in found] == ["override_invalid"]
    wait_for("the refusal in the log", refused, 20)


def test_a_state_over_the_limit_by_its_errors_says_so(make_world):
    world = make_world(**{"limits.max_state": "64KiB"})
    process = world.start()
    story = Story("order-1").start()
    for number in range(4):
        story.event("STEP_FAILED", f"step-{number}", error={"code": "E", "type": None, "message": None, "details": "x" * 20_000})
    world.send(story.stream())
    wait_for("all entries", lambda: process.state("order-1").body.get("failed_step") == "step-3", 30)
    assert process.state("order-1").body["anomalies"] == ["state_too_large"]
