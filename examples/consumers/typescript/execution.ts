import { failPoint } from "./fail-point.ts";
import type { Ledger } from "./ledger.ts";

const STEPS = ["reserve_inventory", "charge_payment", "ship_order"];

/** The members of a restored saga that this engine needs. */
export interface RestoredSaga {
  saga_id: string;
  saga_name: string;
  replay_id: string;
  mode: "resume" | "compensate";
  resume_steps: string[];
  completed_steps: string[];
  skipped_steps: string[];
  compensated_steps: string[];
  compensated_since: string[];
  results: Record<string, unknown>;
  context: Record<string, unknown>;
  force_failure: string | null;
}

export interface StepEvent {
  event_id: string;
  saga_id: string;
  saga_name: string;
  kind: string;
  occurred_at: string;
  step?: string;
  step_index?: number;
  result?: unknown;
  error?: { code: string; type: string; message: string };
}

class StepFailed extends Error {}

/** One restored saga: does its effects and collects its step events. */
export class Execution {
  private readonly saga: RestoredSaga;
  private readonly ledger: Ledger;
  private readonly events: StepEvent[] = [];
  private readonly completed: string[];
  private readonly results: Map<string, unknown>;
  private readonly undone: Set<string>;

  constructor(saga: RestoredSaga, ledger: Ledger) {
    this.saga = saga;
    this.ledger = ledger;
    this.completed = [...saga.completed_steps];
    this.results = new Map(Object.entries(saga.results));
    this.undone = new Set([...saga.compensated_steps, ...saga.compensated_since]);
  }

  resume(): StepEvent[] {
    const saga = this.saga;
    if (saga.mode === "compensate") {
      this.compensate(saga.completed_steps);
      return this.events;
    }
    const settled = new Set([...saga.completed_steps, ...saga.skipped_steps, ...saga.resume_steps]);
    for (const step of [...saga.resume_steps, ...STEPS.filter((step) => !settled.has(step))]) {
      try {
        this.run(step);
      } catch (failure) {
        if (!(failure instanceof StepFailed)) {
          throw failure;
        }
        this.event("STEP_FAILED", step, { error: { code: failure.message, type: "StepFailed", message: `${step} failed` } });
        this.compensate(this.completed.toReversed().filter((step) => !this.undone.has(step)));
        return this.events;
      }
    }
    this.event("SAGA_COMPLETED");
    return this.events;
  }

  private run(step: string) {
    this.event("STEP_STARTED", step);
    if (step === this.saga.force_failure) {
      throw new StepFailed("FORCED_FAILURE");
    }
    const result = this.effect(step, "run", this.saga.context);
    this.completed.push(step);
    this.results.set(step, result);
    this.undone.delete(step);
    this.event("STEP_COMPLETED", step, { result });
  }

  private compensate(steps: string[]) {
    this.event("COMPENSATION_STARTED");
    for (const step of steps) {
      this.effect(step, "compensate", this.results.get(step) ?? null);
      this.event("STEP_COMPENSATED", step);
    }
    this.event("SAGA_COMPENSATED");
  }

  /** Calls the outside world, here: the ledger. Send `key` along as the idempotency key of a real call. */
  private effect(step: string, action: "run" | "compensate", input: unknown): unknown {
    if (!STEPS.includes(step)) {
      throw new Error(`step ${step} is unknown to this engine`);
    }
    const key = `${this.saga.replay_id}/${step}${action === "compensate" ? "/compensation" : ""}`;
    const result = action === "run" ? { id: key } : null;
    const { entry, isNew } = this.ledger.once({ key, saga_id: this.saga.saga_id, step, action, input, result });
    if (isNew) {
      failPoint("after_effect");
    }
    return entry.result;
  }

  /** No `sequence`: an undo comes under the same saga id, and one that began again would make its events look like repeats. */
  private event(kind: string, step?: string, members: Partial<StepEvent> = {}) {
    this.events.push({
      event_id: `${this.saga.replay_id}/${this.events.length + 1}`,
      saga_id: this.saga.saga_id,
      saga_name: this.saga.saga_name,
      kind,
      occurred_at: new Date().toISOString(),
      ...(step === undefined ? {} : { step, step_index: STEPS.indexOf(step) + 1 }),
      ...members,
    });
  }
}
