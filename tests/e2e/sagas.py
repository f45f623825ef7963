"""Plain sagas, as a healthy orchestrator would send them, and requests about them."""

import uuid

import times
from jsontext import Number

BEGAN = times.parse("2026-06-01T08:00:00Z")
STEPS = ["reserve_inventory", "charge_payment", "ship_order", "send_mail"]


class Story:
    """Builds the events of one saga, one second apart."""

    def __init__(self, saga_id, began=BEGAN, name="order-processing"):
        self.saga_id, self.name, self.clock, self.events = saga_id, name, began, []

    def event(self, kind, step=None, **members):
        self.clock += 1_000_000
        event = {"event_id": f"{self.saga_id}/{len(self.events) + 1}", "saga_id": self.saga_id, "saga_name": self.name, "kind": kind,
                 "occurred_at": times.text(self.clock), "sequence": Number(len(self.events) + 1)}
        if step is not None:
            event["step"] = step
            if step in STEPS:
                event["step_index"] = Number(STEPS.index(step))
        self.events.append({**event, **members})
        return self

    def start(self, **context):
        return self.event("SAGA_STARTED", context={"amount": Number("99.50"), **context})

    def done(self, *steps):
        for step in steps:
            self.event("STEP_STARTED", step).event("STEP_COMPLETED", step, result={"id": f"r-{step}"}, context_set={step: True})
        return self

    def broken(self, step, code="TIMEOUT"):
        return self.event("STEP_STARTED", step).event("STEP_FAILED", step, error={"code": code, "type": "PaymentError", "message": "no answer", "details": None})

    def stream(self):
        return [(self.saga_id, event) for event in self.events]


def failed(saga_id, **context):
    """Fails at the payment, without compensation."""
    return Story(saga_id).start(**context).done("reserve_inventory").broken("charge_payment").event("SAGA_FAILED", "charge_payment")


def completed(saga_id):
    return Story(saga_id).start().done(*STEPS).event("SAGA_COMPLETED")


def replay(saga_id, point=None, **members):
    return {"request_id": str(uuid.uuid4()), "command": "REPLAY", "saga_id": saga_id, "from": point or {"step": "charge_payment"},
            "reason": "INC-4412", "requested_by": "ops@example.org", **members}
