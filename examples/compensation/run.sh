#!/usr/bin/env bash
# Does compensation work? A drill on an order that failed in production: a copy of it is made to fail, and has to undo its steps.
set -euo pipefail
export SAGA_NAME=order
# shellcheck source=/dev/null
source "$(dirname "$0")/../checks.sh"
export RESAGA_REASON="drill of compensation"
order="order-$RUN"

# The order, as it failed: nothing was compensated.
{
    event "$order/1" SAGA_STARTED "\"labels\":{\"drill\":\"$RUN\"},\"context\":{\"amount\":99.5}"
    event "$order/2" STEP_STARTED '"step":"reserve_inventory"'
    event "$order/3" STEP_COMPLETED '"step":"reserve_inventory","result":{"id":"r-9"}'
    event "$order/4" STEP_STARTED '"step":"charge_payment"'
    event "$order/5" STEP_COMPLETED '"step":"charge_payment","result":{"charge":"c-1"}'
    event "$order/6" STEP_STARTED '"step":"ship_order"'
    event "$order/7" STEP_FAILED '"step":"ship_order","error":{"code":"NO_CARRIER"}'
    event "$order/8" SAGA_FAILED
} | publish
state() { resaga saga get "$1" -o json | member "$2"; }
eventually "the order failed" failed state "$order" status
before="$(resaga saga get "$order" -o json | member entry)"

# Restored just before ship_order, which the engine is to fail instead of shipping anything.
resaga replay run "$order" --from-step ship_order --force-failure ship_order --wait -o json > "$SCRATCH/replay.json"
replay_id="$(member replay_id < "$SCRATCH/replay.json")"
replay() { resaga replay get "$replay_id" -o json | member "$1"; }
drill="$(replay new_saga_id)"
same "a copy was restored, told to fail ship_order" ship_order "$(replay force_failure)"
same "with the steps before it completed" '["reserve_inventory", "charge_payment"]' "$(state "$drill" completed_steps)"
same "and what their compensation needs" '{"reserve_inventory": {"id": "r-9"}, "charge_payment": {"charge": "c-1"}}' "$(state "$drill" results)"

# The order engine's part, played here: it fails the step as it was told, and undoes what was completed, the last first.
{
    event "$drill/1" STEP_STARTED '"step":"ship_order"'
    event "$drill/2" STEP_FAILED '"step":"ship_order","error":{"code":"FORCED_FAILURE"}'
    event "$drill/3" COMPENSATION_STARTED
    event "$drill/4" STEP_COMPENSATED '"step":"charge_payment"'
    event "$drill/5" STEP_COMPENSATED '"step":"reserve_inventory"'
    event "$drill/6" SAGA_COMPENSATED
} | publish
eventually "the copy ended compensated" compensated state "$drill" status
same "both steps are compensated" '["charge_payment", "reserve_inventory"]' "$(state "$drill" compensated_steps)"
same "the failure is the forced one" FORCED_FAILURE "$(state "$drill" error.code)"
eventually "the replay log says how it ended" compensated replay outcome

# A drill repairs nothing, and stands in nobody's way.
same "the order is as it was" "$before" "$(resaga saga get "$order" -o json | member entry)"
found() { resaga saga list --label "drill:$RUN" "$@" -o jsonl | member saga_id | sort; }
same "the order still counts as never replayed" "$order" "$(found --replay none)"
same "and as not repaired" "$order" "$(found --repaired no)"
same "the copy is listed only if it is asked for" "$(printf '%s\n' "$order" "$drill" | sort)" "$(found --forced)"
resaga replay run "$order" --from-step ship_order --dry-run -o json > "$SCRATCH/dry-run.json"
same "a real replay would not be refused" null "$(member would_refuse < "$SCRATCH/dry-run.json")"
