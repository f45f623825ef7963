#!/usr/bin/env bash
# An auditor asks: what had the patient consented to on 15 July 2025 at 14:30 UTC, when the record was shared with a laboratory?
set -euo pipefail
export SAGA_NAME=consent
# shellcheck source=/dev/null
source "$(dirname "$0")/../checks.sh"
consent="consent-$RUN"
asked=2025-07-15T14:30:00Z

# July: consent is given on the 1st, widened on the 10th, and withdrawn for research on the 15th at 16:00.
{
    event "$consent/1" SAGA_STARTED '"occurred_at":"2025-07-01T09:00:00Z","context":{"patient":"p-77","research":false,"laboratory":false}'
    event "$consent/2" STEP_STARTED '"occurred_at":"2025-07-10T11:00:00Z","step":"widen_consent"'
    event "$consent/3" STEP_COMPLETED '"occurred_at":"2025-07-10T11:05:00Z","step":"widen_consent","context_patch":{"research":true,"laboratory":true}'
    event "$consent/4" CONTEXT_UPDATED '"occurred_at":"2025-07-15T16:00:00Z","context_patch":{"research":false}'
} | publish
newest() { resaga saga get "$consent" -o json | member entry.event_id; }
eventually "four events are in" "$consent/4" newest

value_then() { resaga saga context "$consent" --at "$asked" --pointer "$1" -o json | member value; }
state_then() { resaga saga get "$consent" --at "$asked" -o json | member "$1"; }
same "the laboratory was allowed" true "$(value_then /laboratory)"
same "so was research" true "$(value_then /research)"
same "now research is not" false "$(resaga saga context "$consent" --pointer /research -o json | member value)"
same "the answer rests on the event of 10 July" "$consent/3" "$(state_then entry.event_id)"
is_complete() { [[ "$(state_then complete_through)" > "$asked" ]] && echo yes; }
eventually "and is complete: nothing recorded up to that moment is missing" yes is_complete
answer="$(state_then context)"

before() { resaga saga get "$consent" --at 2025-06-30T00:00:00Z > /dev/null || echo "exit $?"; }
same "before the first event there is no answer, rather than a guess (exit 5)" "exit 5" "$(before)"

same "what changed between that moment and the evening" '[{"op": "replace", "path": "/research", "value": false}]' \
    "$(resaga saga diff "$consent" --from "$asked" --to 2025-07-15T18:00:00Z -o json | member patch)"
entries() { resaga saga history "$consent" "$@" -o jsonl; }
same "one entry of that day says when" 2025-07-15T16:00:00.000000Z \
    "$(entries --since 2025-07-15T00:00:00Z --until 2025-07-16T00:00:00Z | member effective_time)"

# Corrections come later: one says that it holds from August on, one claims to have held at noon on 15 July.
{
    event "$consent/5" CONTEXT_UPDATED '"occurred_at":"2025-08-02T10:00:00Z","context_patch":{"laboratory":false}'
    event "$consent/6" CONTEXT_UPDATED '"occurred_at":"2025-07-15T12:00:00Z","context_patch":{"patient":"p-78"}'
} | publish
eventually "two corrections are in" "$consent/6" newest
same "the answer as of then is the same" "$answer" "$(state_then context)"
same "from the same entry" "$consent/3" "$(state_then entry.event_id)"
same "the back-dated one is marked" '["late"]' "$(entries | tail -n 1 | member anomalies)"
same "and counts from when the history had got to" 2025-08-02T10:00:00.000000Z "$(entries | tail -n 1 | member effective_time)"
