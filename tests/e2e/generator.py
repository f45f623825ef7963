"""Step events at random, from a seed: good ones and every kind of odd ones, but none that is a dead letter by its form."""

import random

import times
from jsontext import Number

STEPS = ["reserve_inventory", "charge_payment", "ship_order", "send_mail", "Größe/7 🚚"]
WORDS = ["amount", "token", "lines", "address", "note", "é", "a/b", "m~n", ""]
NUMBERS = ["0", "1.10", "12345678901234567890", "-0.0", "1e3", "99.5", "7"]
IDS = ["order-{}", "ключ {}", "a/b/../{}", "%2E{}", "..{}", "tab\t{}", "🚚{}?x=1#y", "{}" + "x" * 200]
KINDS = ["STEP_STARTED"] * 6 + ["STEP_COMPLETED"] * 6 + ["STEP_FAILED"] * 3 + ["STEP_SKIPPED", "COMPENSATION_STARTED", "STEP_COMPENSATED", "COMPENSATION_FAILED", "CONTEXT_UPDATED",
         "CONTEXT_UPDATED", "CHECKPOINT", "SAGA_COMPLETED", "SAGA_FAILED", "SAGA_FAILED", "SAGA_COMPENSATED", "SAGA_CANCELLED", "SAGA_STARTED"]


def value(rng, depth=0):
    pick = rng.random()
    if depth < 3 and pick < 0.25:
        return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if depth < 3 and pick < 0.35:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if pick < 0.6:
        return Number(rng.choice(NUMBERS))
    return rng.choice(["tok", "", "naïve \" \\ \n \u2028", "x" * 40, True, False, None])


def members(rng, most=4):
    return {rng.choice(WORDS): value(rng) for _ in range(rng.randrange(most))}


def error(rng):
    full = {"code": rng.choice(["TIMEOUT", "DECLINED"]), "type": "PaymentError", "message": "no answer", "details": value(rng)}
    return {name: full[name] for name in full if rng.random() < 0.8} or {"code": "X"}


def saga(rng, saga_id, length, began):
    """The events of one saga in the order in which they are sent: [event]."""
    numbered = rng.random() < 0.6
    clock, events, number = began, [], 0
    for index in range(length):
        clock += rng.choice([0, 1, 999, 1_000, 1_500_000, 60_000_000])
        kind = "SAGA_STARTED" if index == 0 and rng.random() < 0.85 else rng.choice(KINDS)
        event = {"event_id": f"{rng.getrandbits(64):016x}", "saga_id": saga_id, "saga_name": "order-processing", "kind": kind}
        time_kind = rng.random()
        if time_kind < 0.7:
            event["occurred_at"] = times.text(clock)
        elif time_kind < 0.8:
            event["occurred_at"] = times.text(clock - rng.randrange(1, 300_000_000))  # late
        elif time_kind < 0.85:
            event["occurred_at"] = times.text(clock)[:-1] + "123+00:00"  # finer than microseconds, another zone
        elif index == length - 1 and time_kind < 0.95:
            event["occurred_at"] = times.text(times.now() + 7_200_000_000 + clock % 1_000_000)  # clock ahead
        elif index == length - 1:
            pass  # none: the record's timestamp
        else:
            event["occurred_at"] = times.text(clock)
        if kind.startswith("STEP_") or kind in ("CHECKPOINT", "COMPENSATION_FAILED") or (kind == "SAGA_FAILED" and rng.random() < 0.5):
            event["step"] = rng.choice(STEPS)
            if rng.random() < 0.7:
                event["step_index"] = Number(STEPS.index(event["step"]))
        if kind == "STEP_STARTED" and rng.random() < 0.2:
            event["attempt"] = Number(rng.randrange(1, 5))
        if kind == "STEP_COMPLETED" and rng.random() < 0.7:
            event["result"] = value(rng)
        if "FAILED" in kind and rng.random() < 0.8:
            event["error"] = error(rng)
        form = rng.random()
        if form < 0.25 or kind == "SAGA_STARTED":
            event["context"] = members(rng, 6)
        elif form < 0.45:
            event["context_patch"] = members(rng)
        elif form < 0.6:
            event["context_set"] = members(rng)
        for name, choices in (("saga_version", ["1", "2.0"]), ("tenant", ["acme", "ümlaut"]), ("region", ["eu", "us"]), ("labels", [{"team": "pay"}, {"a": "b", "c": ""}, {}])):
            if rng.random() < 0.08:
                event[name] = rng.choice(choices)
        if rng.random() < 0.1:
            event["unknown_member"] = value(rng)  # ignored
        if numbered:
            number += rng.choice([1, 1, 1, 1, 1, 1, 1, 1, 3])
            event["sequence"] = Number(number)
        events.append(event)
    return disturb(rng, events)


def disturb(rng, events):
    """Duplicates and reordering, as a producer that publishes twice or from two threads makes them."""
    sent = []
    for event in events:
        sent.append(event)
        if rng.random() < 0.12:
            sent.append(rng.choice(sent[-10:]))
        if "sequence" in event and len(sent) > 120 and rng.random() < 0.05:
            sent.append({**event, "event_id": event["event_id"] + "-stale", "sequence": Number(0)})  # below all that are remembered
        if "sequence" in event and rng.random() < 0.04:
            sent.append({**event, "event_id": event["event_id"] + "-again"})  # the same sequence under another id
    for index in range(1, len(sent) - 1):
        if rng.random() < 0.08:
            sent[index], sent[index + 1] = sent[index + 1], sent[index]
    return sent


def sagas(seed, count, most=40, prefix=""):
    """[(saga id, events)]; one in forty is long enough for the window of 64 to matter."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        saga_id = (prefix + rng.choice(IDS)).format(index) if index % 5 == 0 else f"{prefix}order-{index}"
        length = rng.randrange(100, 200) if index % 40 == 7 else rng.randrange(1, most)
        began = times.parse("2026-01-10T10:00:00Z") + rng.randrange(200 * 86_400) * 1_000_000
        made.append((saga_id, saga(rng, saga_id, length, began)))
    return made


def interleaved(seed, made):
    """The events of all sagas as one stream, each saga's in its order."""
    rng = random.Random(seed)
    waiting = [(saga_id, list(reversed(events))) for saga_id, events in made]
    while waiting:
        index = rng.randrange(len(waiting))
        saga_id, events = waiting[index]
        yield saga_id, events.pop()
        if not events:
            waiting[index] = waiting[-1]
            waiting.pop()
