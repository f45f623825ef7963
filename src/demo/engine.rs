//! Runs one order saga of four steps on the virtual clock: the step events it would publish, and a picture of where the
//! saga stands that the engine keeps for itself. No I/O.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clock::Moment;
use super::gateways::{DECLINED, Gateways};
use super::orders::{Order, SOLD_OUT};
use super::restored::Restored;

pub const SAGA_NAME: &str = "order";
pub const RESERVE: &str = "reserve_inventory";
pub const CHARGE: &str = "charge_payment";
/// In the order in which they run.
pub const STEPS: [&str; 4] = [RESERVE, CHARGE, "ship_order", "send_confirmation"];

/// Where a saga stands, as the engine itself knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub status: &'static str,
    pub current_step: Option<String>,
    pub completed_steps: Vec<String>,
    pub failed_step: Option<String>,
    pub error: Value,
    pub context: Value,
    /// Events so far.
    pub events: u64,
}

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: Moment,
    pub saga_id: String,
    pub body: Value,
}

/// One saga's run.
pub struct Run {
    pub saga_id: String,
    pub picture: Picture,
    pub ended: Moment,
    pub events: Vec<Event>,
    /// The picture as it was at the moment of interest, if the saga ran then.
    pub noted: Option<Picture>,
    /// The context when the newest step began.
    pub context_at_step: Value,
    sequence: u64,
    note_at: Moment,
}

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs an order from its beginning.
pub fn run(order: &Order, gateways: &mut Gateways, note_at: Moment) -> Run {
    let mut run = Run::new(order.id.clone(), order.placed, order.context.clone(), Vec::new(), note_at);
    let started = json!({"context": order.context, "saga_version": "1", "tenant": "shop", "labels": {"channel": "web"}});
    run.event("SAGA_STARTED", started);
    run.steps(&STEPS, &Map::new(), gateways);
    run
}

/// Runs what a restored saga has left.
pub fn resume(restored: &Restored, gateways: &mut Gateways, note_at: Moment) -> Run {
    let (id, at) = (restored.saga_id.clone(), restored.restored_at);
    let mut run = Run::new(id, at, restored.context.clone(), restored.completed_steps.clone(), note_at);
    // resaga's own entry, SAGA_RESTORED.
    run.picture.events = 1;
    let left: Vec<&str> = STEPS.into_iter().filter(|step| !restored.completed_steps.iter().any(|done| done == step)).collect();
    run.steps(&left, &restored.attempts, gateways);
    run
}

/// Takes back what a restored saga did, as it is asked to: its completed steps, in the order given. `before`: where it stood, and when
/// it ended.
pub fn compensate(asked: &Restored, (before, ended): (&Picture, Moment), gateways: &mut Gateways) -> Run {
    let at = asked.restored_at.max(ended.after(PAUSE));
    let mut run = Run::new(asked.saga_id.clone(), at, before.context.clone(), Vec::new(), Moment(i64::MIN));
    // Its events are numbered on; the first of them was resaga's own.
    (run.picture, run.sequence) = (before.clone(), before.events - 1);
    run.picture.status = "compensating";
    run.event("COMPENSATION_STARTED", json!({}));
    for step in &asked.completed_steps {
        run.wait(PAUSE);
        if step == CHARGE {
            let text = |pointer: &str| asked.context.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            gateways.refund(text("/payment/gateway"), text("/order/id"));
        }
        run.event("STEP_COMPENSATED", json!({"step": step}));
    }
    run.wait(PAUSE);
    run.picture.status = "compensated";
    run.event("SAGA_COMPENSATED", json!({}));
    run
}

impl Run {
    fn new(saga_id: String, at: Moment, context: Value, completed_steps: Vec<String>, note_at: Moment) -> Self {
        let picture = Picture {
            status: "running",
            current_step: None,
            completed_steps,
            failed_step: None,
            error: Value::Null,
            context: context.clone(),
            events: 0,
        };
        let (events, noted, sequence) = (Vec::new(), None, 0);
        Self { saga_id, picture, ended: at, events, noted, context_at_step: context, sequence, note_at }
    }

    fn steps(&mut self, steps: &[&str], attempts: &Map<String, Value>, gateways: &mut Gateways) {
        for step in steps {
            let attempt = attempts.get(*step).and_then(Value::as_u64).unwrap_or(0) + 1;
            self.wait(PAUSE);
            self.picture.current_step = Some((*step).to_owned());
            let index = STEPS.iter().position(|of_saga| of_saga == step);
            self.event("STEP_STARTED", json!({"step": step, "step_index": index, "attempt": attempt}));
            self.context_at_step = self.picture.context.clone();
            match self.work(step, gateways) {
                Ok((result, changed)) => {
                    self.picture.current_step = None;
                    self.picture.completed_steps.push((*step).to_owned());
                    self.change(&changed);
                    self.event("STEP_COMPLETED", json!({"step": step, "result": result, "context_patch": changed}));
                }
                Err(error) => return self.fail(step, &error),
            }
        }
        self.picture.status = "completed";
        self.wait(PAUSE);
        self.event("SAGA_COMPLETED", json!({}));
    }

    /// What the step returned and what it changed in the context, or its error; the clock goes on meanwhile.
    fn work(&mut self, step: &str, gateways: &mut Gateways) -> Result<(Value, Value), Value> {
        let began = self.ended;
        let context = &self.picture.context;
        let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let order = text("/order/id");
        match step {
            RESERVE if text("/order/items/0/sku") == SOLD_OUT => {
                self.wait(Duration::from_millis(900));
                Err(json!({"code": "409", "type": "OutOfStock", "message": "nothing left of it", "details": {"sku": SOLD_OUT}}))
            }
            RESERVE => {
                self.wait(Duration::from_millis(900));
                let reservation = format!("reservation-{order}");
                Ok((json!({"reservation": reservation}), json!({"inventory": {"reservation": reservation}})))
            }
            CHARGE => match gateways.charge(&text("/payment/gateway"), &order, &text("/payment/card"), began) {
                Ok(charge) => {
                    self.wait(Duration::from_secs(2));
                    Ok((json!({"charge": charge}), json!({"payment": {"state": "paid", "charge": charge}})))
                }
                Err(error) => {
                    let declined = error["type"] == DECLINED;
                    self.wait(Duration::from_secs(if declined { 2 } else { 30 }));
                    Err(error)
                }
            },
            "ship_order" => {
                self.wait(Duration::from_millis(1_500));
                Ok((json!({"parcel": format!("parcel-{order}")}), json!({"shipping": {"parcel": format!("parcel-{order}")}})))
            }
            _ => {
                self.wait(Duration::from_millis(300));
                Ok((Value::Null, json!({"confirmed": true})))
            }
        }
    }

    /// A declined customer gets nothing, so what was done is taken back; after any other failure somebody has to look.
    fn fail(&mut self, step: &str, error: &Value) {
        self.picture.current_step = None;
        self.picture.failed_step = Some(step.to_owned());
        self.picture.error = error.clone();
        let changed = json!({"last_failure": {"step": step, "type": error["type"]}});
        self.change(&changed);
        self.event("STEP_FAILED", json!({"step": step, "error": error, "context_patch": changed}));
        if error["type"] == DECLINED {
            self.wait(PAUSE);
            self.picture.status = "compensating";
            self.event("COMPENSATION_STARTED", json!({}));
            self.wait(PAUSE);
            self.event("STEP_COMPENSATED", json!({"step": RESERVE}));
            self.picture.status = "compensated";
            self.event("SAGA_COMPENSATED", json!({}));
        } else {
            self.wait(PAUSE);
            self.picture.status = "failed";
            self.event("SAGA_FAILED", json!({}));
        }
    }

    fn wait(&mut self, span: Duration) {
        self.ended = self.ended.after(span);
    }

    fn change(&mut self, changed: &Value) {
        merge(&mut self.picture.context, changed);
    }

    fn event(&mut self, kind: &str, members: Value) {
        self.sequence += 1;
        self.picture.events += 1;
        let mut body = json!({
            "event_id": format!("{}/{}", self.saga_id, self.sequence),
            "saga_id": self.saga_id,
            "saga_name": SAGA_NAME,
            "kind": kind,
            "occurred_at": self.ended.to_string(),
            "sequence": self.sequence,
        });
        merge(&mut body, &members);
        self.events.push(Event { at: self.ended, saga_id: self.saga_id.clone(), body });
        if self.ended <= self.note_at {
            let over = matches!(self.picture.status, "completed" | "failed" | "compensated");
            self.noted = (!over).then(|| self.picture.clone());
        }
    }
}

/// Objects into objects; anything else replaces what was there.
fn merge(into: &mut Value, changed: &Value) {
    match (into, changed) {
        (Value::Object(into), Value::Object(changed)) => {
            for (name, value) in changed {
                merge(into.entry(name.clone()).or_insert_with(|| json!({})), value);
            }
        }
        (into, changed) => *into = changed.clone(),
    }
}
