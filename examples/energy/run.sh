#!/usr/bin/env bash
# Energy trades that wait for a grid confirmation which never comes: a policy replays each one that is stuck, with nobody awake.
# Needs a server with a short [stuck] after, such as 3s.
set -euo pipefail
export SAGA_NAME=energy-trade
# shellcheck source=/dev/null
source "$(dirname "$0")/../checks.sh"
export RESAGA_REASON="CHG-12: grid confirmations get lost"
lost="trade-$RUN-lost" confirmed="trade-$RUN-confirmed"

started() {
    event "$1/1" SAGA_STARTED "\"labels\":{\"desk\":\"$RUN\"},\"context\":{\"mwh\":50,\"delivery\":\"2026-01-11T18:00:00Z\",\"grid\":\"a\"}"
    event "$1/2" STEP_STARTED '"step":"nominate"'
    event "$1/3" STEP_COMPLETED '"step":"nominate","result":{"nomination":"n-4"}'
    event "$1/4" STEP_STARTED '"step":"await_grid_confirmation"'
}
finished() {
    event "$1/5" STEP_COMPLETED '"step":"await_grid_confirmation","result":{"confirmed":true}'
    event "$1/6" SAGA_COMPLETED
}

# Under version control: what is to happen, as a file.
cat > "$SCRATCH/schedules.toml" <<TOML
[[schedule]]
name = "lost grid confirmations $RUN"
override = { merge = { grid = "b" } }

[schedule.policy]
on = { stuck = true, saga_name = "energy-trade", label = "desk:$RUN" }
delay = "0s"
max_replays = 1
TOML
plan() { resaga schedule plan --file "$SCRATCH/schedules.toml" -o json | "${PYTHON:-python3}" -c 'import json, sys
print(*(change["action"] for change in json.load(sys.stdin)["changes"] if change["name"].endswith(sys.argv[1])))' "$RUN"; }
same "the plan would create the policy" create "$(plan)"
resaga schedule apply --file "$SCRATCH/schedules.toml" > /dev/null
eventually "what runs is what the file says" unchanged plan
schedule_id="$(resaga schedule list -o jsonl | grep -F "$RUN" | member schedule_id)"
policy() { resaga schedule get "$schedule_id" -o json | member "$1"; }

# One trade loses its confirmation, one gets it.
{
    started "$lost"
    started "$confirmed"
    finished "$confirmed"
} | publish
found() { resaga saga list --label "desk:$RUN" "$@" -o jsonl | member saga_id; }
eventually "the trade without confirmation is stuck" "$lost" found --stuck --depth 0

replay() { resaga replay list --saga-id "$lost" -o jsonl | member "$1"; }
eventually "the policy replays it by itself" published replay status
restored="$(replay new_saga_id)"
same "from the step it waits in" await_grid_confirmation "$(replay resume_step)"
context() { resaga saga context "$restored" --pointer "$1" -o json | member value; }
same "at the other grid operator" b "$(context /grid)"
same "the trade itself unchanged" 50 "$(context /mwh)"

# The trading engine's part, played here: it asks again, and this time the grid confirms.
{
    event "$restored/4" STEP_STARTED '"step":"await_grid_confirmation"'
    finished "$restored"
} | publish
eventually "the replay completed" completed replay outcome
eventually "nothing stuck is left to repair" "" found --stuck --repaired no
same "one saga was restored, for the stuck trade alone" "$restored" "$(found --depth 1)"
eventually "the policy counts it as completed" 1 policy counts.completed

resaga schedule delete "$schedule_id" > /dev/null
eventually "the policy has ended" cancelled policy status
