"""Consumers of restored sagas: the examples of each language, and your own, do what docs/consuming-restored-sagas.md asks for.

`RESAGA_TEST_CONSUMER`: a command that is judged beside them, as the language "own".
"""

import functools
import itertools
import json
import os
import shlex
import signal
import subprocess
import uuid
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest
from confluent_kafka import Producer

from checks import log_records
from jsontext import loads
from plan import new_saga_id, replay_id
from resaga import Resaga
from sagas import failed, replay
from servers.process import Server, wait_for
from world import World

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = ["python", "java", "go", "typescript"]
LANGUAGES = EXAMPLES + (["own"] if os.environ.get("RESAGA_TEST_CONSUMER") else [])
RESERVE, CHARGE, SHIP = "reserve_inventory", "charge_payment", "ship_order"
RESERVED = {"reserve_inventory": {"id": "r-9"}}
CONTEXT = {"amount": 99.5, "payment_token": "tok_new"}
HARD_EXIT = 137
_numbers = itertools.count(1)


class ConsumerProcess(Server):
    """One run of a consumer; the ledger is beside its log and is kept from run to run."""

    def __init__(self, directory, command, world, **variables):
        super().__init__(directory)
        self.name, self._command, self.world = f"consumer-{next(_numbers)}", command, world
        self.group, self.ledger = f"resumer-{world.id}", self.directory / "ledger.jsonl"
        self.variables = {"BROKERS": world.servers["kafka"], "GROUP_ID": self.group, "RESTORED_TOPIC": world.restored, "EVENTS_TOPIC": world.events,
                          "LEDGER": str(self.ledger), "SESSION_TIMEOUT_MS": "5000", "FAIL_POINT": "", **variables}

    def command(self):
        return self._command

    def environment(self):
        return self.variables

    def await_read(self, within=60):
        """Waits until the group has committed everything that was published."""
        ends = {message.partition(): message.offset() + 1 for message in self.world.log.read(self.world.restored)}

        def done():
            committed = self.world.log.committed(self.group, self.world.restored)
            behind = {partition: committed[partition] for partition, end in ends.items() if committed[partition] < end}
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            assert not behind, f"committed {behind} of {ends}"
            return True
        self.await_condition("offsets of all records committed", done, within)

    def await_condition(self, what, condition, within=60):
        try:
            return wait_for(what, condition, within)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n--- {self.name} ---\n{self.tail(60)}") from error

    def await_exit(self, code, within=60):
        try:
            ended = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs\n{self.tail(60)}") from None
        self.forget()
        assert ended == code, f"{self.name} ended with {ended}, not {code}\n{self.tail(60)}"

    def terminate(self, within=20):
        """SIGTERM: it ends by itself, and has left its group."""
        self.process.send_signal(signal.SIGTERM)
        ended = self.process.wait(within)
        self.forget()
        # A JVM ends with 143 however clean.
        assert ended in (0, 128 + signal.SIGTERM), f"{self.name} ended with {ended}\n{self.tail(60)}"
        assert not self.world.log.assignment(self.group, self.world.restored), "it did not leave its group"

    def effects(self):
        """[(saga id, step, action, key, input)] of the ledger, in order."""
        lines = [json.loads(line) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []
        return [(line["saga_id"], line["step"], line["action"], line["key"], line.get("input")) for line in lines if "action" in line]


@functools.cache
def command(language):
    """Of the consumer of this language, which is built if it is not."""
    if language == "own":
        return shlex.split(os.environ["RESAGA_TEST_CONSUMER"])
    built = subprocess.run([TOP / "tests/consumers/prepare", language], stdout=subprocess.PIPE, text=True, check=True)
    return [built.stdout.rstrip("\n").partition("\t")[2]]


def restored(saga_id, original="order-1", named=None, **members):
    """A restored saga as resaga writes it: failed at the payment, to go on there."""
    named = named or str(uuid.uuid4())
    return {
        "saga_id": saga_id, "saga_name": "order-processing", "saga_version": None, "mode": "resume", "resume_step": CHARGE, "resume_step_index": 2,
        "resume_steps": [CHARGE], "completed_steps": [RESERVE], "skipped_steps": [], "compensated_steps": [], "compensated_since": [],
        "attempts": {RESERVE: 1, CHARGE: 1}, "results": RESERVED, "context": CONTEXT, "force_failure": None, "original_saga_id": original,
        "root_saga_id": original, "depth": 1, "replay_id": named, "request_id": str(uuid.uuid4()), "batch_id": None,
        "checkpoint": {"sequence": 4, "effective_time": "2026-01-10T10:00:03.000000Z", "position": {"topic": "saga.events.v1", "partition": 3, "offset": 41}},
        "requested_by": "ops@example.org", "reason": "INC-4412", "restored_at": now(), "tenant": None, "region": None, "labels": {}, **members}


def compensating(saga_id, completed, **members):
    return restored(saga_id, mode="compensate", resume_step=None, resume_step_index=None, resume_steps=[], completed_steps=completed, **members)


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Replays:
    """Publishes restored sagas as resaga does: in transactions, with SAGA_RESTORED beside each, compressed with zstd."""

    def __init__(self, world):
        self.world = world
        self.producer = Producer({"bootstrap.servers": world.servers["kafka"], "transactional.id": f"replays-{world.id}", "partitioner": "murmur2_random",
                                  "compression.type": "zstd"})
        self.producer.init_transactions(30)

    def publish(self, *sagas, abort=False, events=True):
        self.producer.begin_transaction()
        for saga in sagas:
            headers = {"ce_specversion": "1.0", "ce_id": saga["replay_id"], "ce_type": "io.resaga.saga.restored.v1", "content-type": "application/json",
                       "resaga-replay-id": saga["replay_id"], "resaga-original-id": saga["original_saga_id"], "resaga-mode": saga["mode"]}
            self.producer.produce(self.world.restored, json.dumps(saga), saga["saga_id"], headers=headers)
            if events:
                event = {"event_id": saga["replay_id"], "saga_id": saga["saga_id"], "saga_name": saga["saga_name"], "kind": "SAGA_RESTORED",
                         "occurred_at": saga["restored_at"], "context": saga["context"],
                         "restored": {name: value for name, value in saga.items() if name != "context"}}
                self.producer.produce(self.world.events, json.dumps(event), saga["saga_id"], headers=headers)
        if abort:
            self.producer.flush(30)
            self.producer.abort_transaction(30)
        else:
            self.producer.commit_transaction(30)


class Outcome:
    """What a consumer did: its effects and its events, by saga."""

    def __init__(self, consumer):
        self.consumer, self.world = consumer, consumer.world
        self.messages = [m for m in self.world.log.read(self.world.events) if b'"SAGA_RESTORED"' not in m.value()]
        self.model = self.world.judge()

    def kinds(self, saga_id):
        """"KIND step" of its events, in their order."""
        values = [loads(m.value().decode()) for m in self.messages if m.key().decode() == saga_id]
        return [" ".join(filter(None, [value["kind"], value.get("step")])) for value in values]

    def event(self, saga_id, kind, step=None):
        found = [v for v in (json.loads(m.value()) for m in self.messages) if (v["saga_id"], v["kind"], v.get("step")) == (saga_id, kind, step)]
        assert len(found) == 1, f"{len(found)} of {kind} {step} of {saga_id}"
        return found[0]

    def effects(self, saga_id):
        return [(action, step) for saga, step, action, _, _ in self.consumer.effects() if saga == saga_id]

    def given(self, saga_id):
        """{(action, step): what the effect was given}."""
        return {(action, step): given for saga, step, action, _, given in self.consumer.effects() if saga == saga_id}

    def state(self, saga_id):
        return self.model.sagas[saga_id].entries[-1].state


def ran(*steps):
    return [f"{kind} {step}" for step in steps for kind in ("STEP_STARTED", "STEP_COMPLETED")]


def undid(*steps):
    return ["COMPENSATION_STARTED", *(f"STEP_COMPENSATED {step}" for step in steps), "SAGA_COMPENSATED"]


RESULTS = {RESERVE: {"id": "r-9"}, CHARGE: {"id": "c-7"}, SHIP: {"id": "s-5"}}
PLAIN = restored("plain")
AFTER_ABORT = restored("aborted")
UNDONE = restored("undone")
# Everything that one run of a consumer is judged by; the tests below say what is expected of each.
TRANSACTIONS = [
    ([PLAIN], {}),
    ([restored("skipped", skipped_steps=[SHIP])], {}),
    ([restored("parallel", resume_steps=[SHIP, CHARGE], resume_step=CHARGE)], {}),
    ([restored("from-start", resume_steps=[RESERVE], resume_step=RESERVE, completed_steps=[], results={})], {}),
    ([restored("nothing-left", resume_steps=[], resume_step=None, completed_steps=[RESERVE, CHARGE, SHIP], results=RESULTS)], {}),
    ([twice := restored("twice")], {}), ([twice], {"events": False}), ([restored("between"), twice], {"events": False}),
    ([restored("aborted", context={"amount": 1})], {"abort": True}), ([AFTER_ABORT], {}),
    ([compensating("compensate", [CHARGE, RESERVE], results=RESULTS)], {}),
    # Parallel branches: not the order of the engine's list turned round; one was undone before.
    ([compensating("compensate-parallel", [RESERVE, SHIP], results=RESULTS, compensated_steps=[CHARGE])], {}),
    ([UNDONE], {}), ([compensating("undone", [SHIP, CHARGE], results=RESULTS, depth=1)], {"events": False}),
    ([restored("forced", force_failure=SHIP)], {}),
    ([restored("forced-at-once", force_failure=CHARGE)], {}),
    ([restored("forced-after-undo", force_failure=CHARGE, compensated_since=[RESERVE])], {}),
    ([restored("forced-rerun", force_failure=SHIP, completed_steps=[], results={}, resume_steps=[RESERVE, CHARGE], resume_step=RESERVE, compensated_since=[RESERVE])], {}),
    ([restored("foreign", saga_name="shipping")], {}),
]


@pytest.fixture(scope="module", params=LANGUAGES)
def outcome(request, servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    world = World(directory / "world", servers)
    consumer = ConsumerProcess(directory / "consumer", command(request.param), world)
    try:
        replays = Replays(world)
        half = len(TRANSACTIONS) // 2
        for sagas, how in TRANSACTIONS[:half]:
            replays.publish(*sagas, **how)
        consumer.launch()
        for sagas, how in TRANSACTIONS[half:]:
            replays.publish(*sagas, **how)
        consumer.await_read()
        consumer.terminate()
        yield Outcome(consumer)
    finally:
        consumer.kill()
        world.close()


def test_a_restored_saga_goes_on_where_it_stands(outcome):
    assert outcome.kinds("plain") == [*ran(CHARGE, SHIP), "SAGA_COMPLETED"]
    assert outcome.effects("plain") == [("run", CHARGE), ("run", SHIP)]
    assert outcome.given("plain")["run", CHARGE] == CONTEXT, "the override is in the context"
    assert outcome.kinds("skipped") == [*ran(CHARGE), "SAGA_COMPLETED"]
    assert outcome.kinds("parallel") == [*ran(SHIP, CHARGE), "SAGA_COMPLETED"], "resume_steps first, in their order"
    assert outcome.kinds("from-start") == [*ran(RESERVE, CHARGE, SHIP), "SAGA_COMPLETED"]
    assert outcome.kinds("nothing-left") == ["SAGA_COMPLETED"] and not outcome.effects("nothing-left")


def test_its_events_are_valid_and_behind_saga_restored(outcome):
    for message in outcome.messages:
        event = json.loads(message.value())
        assert message.key().decode() == event["saga_id"] and event["saga_name"] == "order-processing"
        assert datetime.fromisoformat(event["occurred_at"]).tzinfo, "a time without zone is refused"
    ids = Counter(json.loads(m.value())["event_id"] for m in outcome.messages)
    assert ids and max(ids.values()) == 1, ids.most_common(3)
    for sagas, how in TRANSACTIONS:
        for saga in sagas:
            if how or saga["saga_id"] in ("foreign", "undone"):
                continue
            read = outcome.model.sagas[saga["saga_id"]]
            assert read.entries[0].record.event["kind"] == "SAGA_RESTORED", saga["saga_id"]
            assert len({entry.record.partition for entry in read.entries}) == 1, "partition by murmur2 of the saga id"
            assert not [a for entry in read.entries for a in entry.anomalies] and not read.duplicates and not read.dead, saga["saga_id"]
    assert outcome.state("plain")["status"] == "completed" and outcome.state("plain")["completed_steps"] == [RESERVE, CHARGE, SHIP]
    assert outcome.state("plain")["results"][CHARGE], "a compensation needs it"


def test_a_replay_that_comes_again_is_done_once(outcome):
    assert outcome.kinds("twice") == [*ran(CHARGE, SHIP), "SAGA_COMPLETED"]
    assert outcome.effects("twice") == [("run", CHARGE), ("run", SHIP)]
    assert outcome.effects("between") == [("run", CHARGE), ("run", SHIP)], "what came beside the repeat is done"


def test_what_an_aborted_transaction_wrote_is_not_done(outcome):
    assert outcome.effects("aborted") == [("run", CHARGE), ("run", SHIP)]
    assert outcome.given("aborted")["run", CHARGE] == CONTEXT
    assert outcome.event("aborted", "SAGA_COMPLETED")
    assert b'"amount": 1}' in b"".join(m.value() for m in outcome.world.log.read(outcome.world.restored, committed=False)), "there was an aborted one"


def test_mode_compensate_undoes_in_the_given_order_with_the_results(outcome):
    assert outcome.kinds("compensate") == undid(CHARGE, RESERVE)
    assert outcome.given("compensate") == {("compensate", CHARGE): {"id": "c-7"}, ("compensate", RESERVE): {"id": "r-9"}}
    assert outcome.state("compensate")["status"] == "compensated"
    assert outcome.kinds("compensate-parallel") == undid(RESERVE, SHIP)
    assert outcome.effects("compensate-parallel") == [("compensate", RESERVE), ("compensate", SHIP)]


def test_an_undo_has_the_saga_id_of_what_it_undoes_and_is_no_repeat(outcome):
    assert outcome.kinds("undone") == [*ran(CHARGE, SHIP), "SAGA_COMPLETED", *undid(SHIP, CHARGE)]
    assert outcome.state("undone")["status"] == "compensated"
    assert not outcome.model.sagas["undone"].duplicates, "neither event ids nor sequences begin again"


def test_a_forced_failure_fails_the_step_instead_of_running_it(outcome):
    assert outcome.kinds("forced") == [*ran(CHARGE), f"STEP_STARTED {SHIP}", f"STEP_FAILED {SHIP}", *undid(CHARGE, RESERVE)]
    assert outcome.effects("forced") == [("run", CHARGE), ("compensate", CHARGE), ("compensate", RESERVE)]
    assert outcome.event("forced", "STEP_FAILED", SHIP)["error"]["code"]
    assert outcome.given("forced")["compensate", CHARGE] == outcome.event("forced", "STEP_COMPLETED", CHARGE)["result"]
    assert outcome.given("forced")["compensate", RESERVE] == {"id": "r-9"}
    assert outcome.kinds("forced-at-once") == [f"STEP_STARTED {CHARGE}", f"STEP_FAILED {CHARGE}", *undid(RESERVE)]
    # What was undone since is not undone a second time, unless it was run again.
    assert outcome.kinds("forced-after-undo") == [f"STEP_STARTED {CHARGE}", f"STEP_FAILED {CHARGE}", *undid()]
    assert not outcome.effects("forced-after-undo")
    assert outcome.effects("forced-rerun") == [("run", RESERVE), ("run", CHARGE), ("compensate", CHARGE), ("compensate", RESERVE)]


def test_sagas_of_other_engines_are_left_alone(outcome):
    assert not outcome.kinds("foreign") and not outcome.effects("foreign")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_restart_in_the_middle_neither_loses_nor_doubles(language, world, tmp_path):
    def start(**variables):
        return ConsumerProcess(tmp_path / "consumer", command(language), world, **variables).launch()

    def visible():
        return sum(b'"SAGA_COMPLETED"' in message.value() for message in world.log.read(world.events))

    replays, sagas = Replays(world), [restored(f"order-{number}") for number in range(40)]
    replays.publish(*sagas[:20])
    consumer = start(FAIL_POINT="after_effect")
    try:
        # Between an effect and the commit: the effect is there, its saga's events are not.
        consumer.await_exit(HARD_EXIT)
        assert len(consumer.effects()) == 1 and visible() == 0
        # Events and offset are on the broker, and are not committed. It may have begun with another partition.
        consumer = start(FAIL_POINT="before_commit")
        consumer.await_exit(HARD_EXIT)
        assert len(consumer.effects()) in (2, 3) and visible() == 0
        # Killed from outside, somewhere.
        consumer = start()
        consumer.await_condition("some are done", lambda: visible() >= 2)
        consumer.kill()
        # Ended by SIGTERM in the middle, with the same records once more behind them.
        before = visible()
        replays.publish(*sagas[20:])
        replays.publish(*sagas[:20], events=False)
        consumer = start()
        consumer.await_condition("more are done", lambda: visible() > before)
        consumer.terminate()
        consumer = start()
        consumer.await_read()
        consumer.terminate()
    finally:
        consumer.kill()
    outcome = Outcome(consumer)
    for saga in sagas:
        assert outcome.kinds(saga["saga_id"]) == [*ran(CHARGE, SHIP), "SAGA_COMPLETED"], saga["saga_id"]
        assert not outcome.model.sagas[saga["saga_id"]].duplicates
    expected = Counter(f"{saga['replay_id']}/{step}" for saga in sagas for step in (CHARGE, SHIP))
    assert Counter(key for _, _, _, key, _ in consumer.effects()) == expected
    everything = [m for m in world.log.read(world.events, committed=False) if b'"SAGA_COMPLETED"' in m.value()]
    assert len(everything) > len(sagas), "nothing was aborted, so nothing was proved"


@pytest.mark.parametrize("language", EXAMPLES)
@pytest.mark.parametrize("value", [b"{", json.dumps(restored("unknown-step", resume_steps=["send_mail"])).encode()], ids=["no-json", "unknown-step"])
def test_what_it_does_not_understand_stops_it_and_stays_uncommitted(language, value, world, tmp_path):
    world.log.send(world.restored, "unknown-step", value)
    world.log.flush()
    consumer = ConsumerProcess(tmp_path / "consumer", command(language), world).launch()
    try:
        consumer.await_exit(1)
    finally:
        consumer.kill()
    assert set(world.log.committed(consumer.group, world.restored).values()) == {-1001} and not consumer.effects()
    assert not world.log.read(world.events, committed=False)


@pytest.mark.parametrize("language", LANGUAGES)
def test_with_resaga_a_replay_completes_and_is_undone(language, world, tmp_path):
    """Replay, consumer, events, log; then the undo of it, the same way."""
    def until(named, status):
        return wait_for(f"replay {status}", lambda: (r := log_records(world).get(named)) and r["status"] == status and r, 60, every=0.2)

    process: Resaga = world.start()
    consumer = ConsumerProcess(tmp_path / "consumer", command(language), world).launch()
    try:
        world.send(failed("order-1", payment_token="tok_old").stream())
        request = replay("order-1", override={"merge": {"payment_token": "tok_new"}})
        world.request(request)
        named = replay_id(request["request_id"], "order-1")
        new = new_saga_id(named, "order-1")
        assert until(named, "completed")["outcome"] == "completed"
        assert [(saga, step, action, key) for saga, step, action, key, _ in consumer.effects()] == [
            (new, CHARGE, "run", f"{named}/{CHARGE}"), (new, SHIP, "run", f"{named}/{SHIP}")]
        assert consumer.effects()[0][4]["payment_token"] == "tok_new"
        assert process.post(f"/v1/replays/{named}/undo", json.dumps({"requested_by": "ops@example.org", "reason": "wrong gateway"})).status == 202
        until(named, "undone")
        assert [(saga, step, action) for saga, step, action, _, _ in consumer.effects()[2:]] == [(new, SHIP, "compensate"), (new, CHARGE, "compensate")]
        consumer.terminate()
    finally:
        consumer.kill()
    model = world.judge()
    assert not model.sagas[new].duplicates and model.sagas[new].entries[-1].state["status"] == "compensated"
