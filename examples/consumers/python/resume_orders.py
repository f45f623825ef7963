"""Resumes restored order sagas. What it must do and why: docs/consuming-restored-sagas.md.

Per record: its effects, each once; then one short transaction with its step events and its input offset.
Any error ends the process. Whoever starts it again gives it the same record again, as after a crash.
"""

import json
import os
import signal
import sys
from datetime import datetime, timezone

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

SAGA_NAME = "order-processing"
STEPS = ["reserve_inventory", "charge_payment", "ship_order"]

BROKERS = os.environ.get("BROKERS", "127.0.0.1:9092")
GROUP_ID = os.environ.get("GROUP_ID", "order-resumer")
RESTORED_TOPIC = os.environ.get("RESTORED_TOPIC", "saga.restored.v1")
EVENTS_TOPIC = os.environ.get("EVENTS_TOPIC", "saga.events.v1")
LEDGER = os.environ.get("LEDGER", "ledger.jsonl")
SESSION_TIMEOUT_MS = int(os.environ.get("SESSION_TIMEOUT_MS", "10000"))
FAIL_POINT = os.environ.get("FAIL_POINT", "")  # of the conformance test: after_effect, before_commit


def fail_point(name):
    if name == FAIL_POINT:
        os._exit(137)  # nothing is closed, as after a kill


class Ledger:
    """What was done, a JSON line each, on disk before anything builds on it. In production: a table with `key` as primary key."""

    def __init__(self, path):
        self.file = open(path, "a+b", buffering=0)
        self.file.seek(0)
        content = self.file.read()
        whole = content[:content.rfind(b"\n") + 1]
        self.file.truncate(len(whole))  # a crash may have left half a line
        self.entries = {entry["key"]: entry for entry in map(json.loads, whole.splitlines())}

    def once(self, key, entry):
        """The entry that the ledger has under this key, this one if it had none; and whether it is new."""
        if key in self.entries:
            return self.entries[key], False
        self.file.write(json.dumps({"key": key, **entry}).encode() + b"\n")
        os.fsync(self.file.fileno())
        self.entries[key] = entry
        return entry, True


class StepFailed(Exception):
    """Its text is the error's code."""


class Execution:
    """One restored saga: does its effects and collects its step events."""

    def __init__(self, saga, ledger):
        self.saga, self.ledger, self.events = saga, ledger, []
        self.completed, self.results = list(saga["completed_steps"]), dict(saga["results"])
        self.undone = {*saga["compensated_steps"], *saga["compensated_since"]}

    def resume(self):
        saga = self.saga
        if saga["mode"] == "compensate":
            self.compensate(saga["completed_steps"])
            return self.events
        settled = {*saga["completed_steps"], *saga["skipped_steps"], *saga["resume_steps"]}
        for step in [*saga["resume_steps"], *(step for step in STEPS if step not in settled)]:
            try:
                self.run(step)
            except StepFailed as failure:
                self.event("STEP_FAILED", step, error={"code": str(failure), "type": "StepFailed", "message": f"{step} failed"})
                self.compensate([step for step in reversed(self.completed) if step not in self.undone])
                return self.events
        self.event("SAGA_COMPLETED")
        return self.events

    def run(self, step):
        self.event("STEP_STARTED", step)
        if step == self.saga["force_failure"]:
            raise StepFailed("FORCED_FAILURE")
        result = self.effect(step, "run", self.saga["context"])
        self.completed.append(step)
        self.results[step] = result
        self.undone.discard(step)
        self.event("STEP_COMPLETED", step, result=result)

    def compensate(self, steps):
        self.event("COMPENSATION_STARTED")
        for step in steps:
            self.effect(step, "compensate", self.results.get(step))
            self.event("STEP_COMPENSATED", step)
        self.event("SAGA_COMPENSATED")

    def effect(self, step, action, given):
        """Calls the outside world, here: the ledger. Send `key` along as the idempotency key of a real call."""
        if step not in STEPS:
            raise ValueError(f"step {step} is unknown to this engine")
        key = f"{self.saga['replay_id']}/{step}" + ("/compensation" if action == "compensate" else "")
        result = {"id": key} if action == "run" else None
        entry, is_new = self.ledger.once(key, {"saga_id": self.saga["saga_id"], "step": step, "action": action, "input": given, "result": result})
        if is_new:
            fail_point("after_effect")
        return entry["result"]

    def event(self, kind, step=None, **members):
        # No `sequence`: an undo comes under the same saga id, and one that began again would make its events look like repeats.
        event = {"event_id": f"{self.saga['replay_id']}/{len(self.events) + 1}", "saga_id": self.saga["saga_id"],
                 "saga_name": self.saga["saga_name"], "kind": kind, "occurred_at": datetime.now(timezone.utc).isoformat()}
        if step is not None:
            event |= {"step": step, "step_index": STEPS.index(step) + 1}
        self.events.append(event | members)


def events_of(message, ledger):
    """Carries out one record. None come of another engine's saga and of a replay that another record brought already."""
    saga = json.loads(message.value())
    if saga["saga_name"] != SAGA_NAME:
        return []
    position = f"{message.topic()}/{message.partition()}/{message.offset()}"
    taken, _ = ledger.once(saga["replay_id"], {"position": position})
    # The same position again: the transaction of the first time was never committed, or its offset would be.
    return Execution(saga, ledger).resume() if taken["position"] == position else []


def main():
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    ledger = Ledger(LEDGER)
    # One id per process, the same after a restart: it ends what the process before left open. murmur2: as Java's producers.
    producer = Producer({"bootstrap.servers": BROKERS, "transactional.id": f"{GROUP_ID}-1", "partitioner": "murmur2_random"})
    producer.init_transactions()
    consumer = Consumer({"bootstrap.servers": BROKERS, "group.id": GROUP_ID, "isolation.level": "read_committed", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "session.timeout.ms": SESSION_TIMEOUT_MS, "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 4})
    consumer.subscribe([RESTORED_TOPIC])
    while not stopping:
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        events = events_of(message, ledger)
        producer.begin_transaction()
        for event in events:
            producer.produce(EVENTS_TOPIC, json.dumps(event), key=event["saga_id"])
        read_up_to = TopicPartition(message.topic(), message.partition(), message.offset() + 1)
        producer.send_offsets_to_transaction([read_up_to], consumer.consumer_group_metadata())
        if events:
            producer.flush()
            fail_point("before_commit")
        producer.commit_transaction()
    consumer.close()


if __name__ == "__main__":
    sys.exit(main())
