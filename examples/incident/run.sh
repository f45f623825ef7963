#!/usr/bin/env bash
# 3 a.m.: 30 orders failed at charge_payment because their tokens had expired. Each gets a token of its own, in one batch.
set -euo pipefail
export SAGA_NAME=order
# shellcheck source=/dev/null
source "$(dirname "$0")/../checks.sh"
export RESAGA_REASON="INC-4412, tokens expired"
ORDERS=30
of_incident=(--label "incident:$RUN")

failed_order() {
    event "$1/1" SAGA_STARTED "\"labels\":{\"incident\":\"$RUN\"},\"context\":{\"amount\":99.5,\"payment_token\":\"tok_expired\"}"
    event "$1/2" STEP_STARTED '"step":"reserve_inventory"'
    event "$1/3" STEP_COMPLETED '"step":"reserve_inventory","result":{"id":"r-9"}'
    event "$1/4" STEP_STARTED '"step":"charge_payment"'
    event "$1/5" STEP_FAILED '"step":"charge_payment","error":{"code":"TOKEN_EXPIRED"}'
    event "$1/6" SAGA_FAILED
}
for (( n = 1; n <= ORDERS; n++ )); do failed_order "order-$RUN-$n"; done | publish

# What is wrong, and with whom?
count() { resaga saga count --status failed --repaired no "${of_incident[@]}" --by failed_step --by error_code -o csv; }
eventually "$ORDERS orders failed, all at charge_payment with TOKEN_EXPIRED" \
    "$(printf 'failed_step,error_code,count\ncharge_payment,TOKEN_EXPIRED,%s' $ORDERS)" count
not_repaired() { resaga saga list --status failed --repaired no "${of_incident[@]}" --limit 1000 -o jsonl | member saga_id; }
not_repaired > "$SCRATCH/failed.txt"

# The payment provider issues a new token for each order.
{
    echo saga_id,payment_token
    while read -r saga; do echo "$saga,tok_new_${saga##*-}"; done < "$SCRATCH/failed.txt"
} > "$SCRATCH/tokens.csv"

same_batch=(--overrides "@$SCRATCH/tokens.csv" --from-step charge_payment)
resaga batch plan "${same_batch[@]}" -o json > "$SCRATCH/plan.json"
plan_id="$(member plan_id < "$SCRATCH/plan.json")"
same "the plan replays every one of them" "{\"replay\": $ORDERS}" "$(member counts < "$SCRATCH/plan.json")"
wrong=0
resaga batch run "${same_batch[@]}" --confirm $(( ORDERS - 1 )) < /dev/null || wrong=$?
same "a batch confirmed with another number of sagas is not run (exit 9)" 9 "$wrong"
all() { resaga saga list "${of_incident[@]}" --limit 1000 -o jsonl; }
same "neither restored anything" $ORDERS "$(all | lines)"

# It waits until every restored saga has ended. Not by the function, so that a script that fails can end it.
"${RESAGA:-resaga}" batch run --plan "$plan_id" --wait --timeout 2m > /dev/null 2>> "$SCRATCH/stderr" &
waiting=$!
report() { resaga batch report "$plan_id" -o jsonl; }
tally() { report | member "$1" | sort | uniq -c | tr -s ' '; }
eventually "each order has a restored saga" " $ORDERS published" tally status
one="order-$RUN-1"
restored="$(report | grep -F "\"original_saga_id\":\"$one\"" | member new_saga_id)"
token() { resaga saga context "$1" --pointer /payment_token -o json | member value; }
same "a restored saga has the token that is its own" tok_new_1 "$(token "$restored")"
same "the original still has the old one" tok_expired "$(token "$one")"

# The order engine's part, played here: it resumes each restored saga at charge_payment and finishes it.
for saga in $(report | member new_saga_id); do
    event "$saga/1" STEP_STARTED '"step":"charge_payment"'
    event "$saga/2" STEP_COMPLETED '"step":"charge_payment","result":{"charge":"c-1"}'
    event "$saga/3" SAGA_COMPLETED
done | publish

wait "$waiting"
same "the report says that every restored saga completed" " $ORDERS completed" "$(tally outcome)"
eventually "no order is left to repair" "" not_repaired
