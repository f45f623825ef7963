# Sourced by the run.sh of the examples: publishing events, reading answers, and checks that say `ok` or end the script.
# shellcheck shell=bash

# Sagas of this run alone, however often it runs on one installation.
RUN="$(date +%s)-$RANDOM"
export RUN
SCRATCH="$(mktemp -d)"
FAILED=""

# What resaga refused is shown if something goes wrong; what still runs ends.
finish() {
    local code=$?
    if (( code )); then
        [[ -n $FAILED ]] || echo "FAILED in $0 (exit $code)" >&2
        grep -vE '^(complete through|there is more|[0-9]+ sagas)' "$SCRATCH/stderr" | tail -n 5 >&2 || true
        jobs -p | xargs -r kill 2> /dev/null || true
    fi
    rm -rf "$SCRATCH"
}
trap finish EXIT

resaga() { command "${RESAGA:-resaga}" "$@" 2>>"$SCRATCH/stderr"; }

publish() { "${PYTHON:-python3}" "${BASH_SOURCE[0]%/*}/publish.py"; }

# event SAGA/NUMBER KIND [MEMBERS]: a step event; SAGA/NUMBER is its id, and the same if it is published again.
event() { printf '{"event_id":"%s","saga_id":"%s","saga_name":"%s","kind":"%s"%s}\n' "$1" "${1%/*}" "$SAGA_NAME" "$2" "${3:+,$3}"; }

# member PATH: of each JSON document of stdin, `a.b` is b inside a; text as it is, all else as JSON.
member() {
    "${PYTHON:-python3}" -c 'import functools, json, sys
text = sys.stdin.read().strip()
while text:
    document, end = json.JSONDecoder().raw_decode(text)
    text = text[end:].lstrip()
    value = functools.reduce(lambda inside, name: inside[name], sys.argv[1].split("."), document)
    print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

lines() { wc -l | tr -d ' '; }

# same FACT EXPECTED FOUND
same() {
    if [[ $2 == "$3" ]]; then echo "ok  $1"; return; fi
    FAILED=yes
    printf 'NO  %s\n    expected: %s\n    found:    %s\n' "$1" "$2" "$3" >&2
    exit 1
}

# eventually FACT EXPECTED COMMAND...: until the command prints that, for a minute at most.
eventually() {
    local fact="$1" expected="$2" found deadline=$(( SECONDS + 60 ))
    shift 2
    while found="$("$@")" || true; [[ $found != "$expected" ]] && (( SECONDS < deadline )); do sleep 0.3; done
    same "$fact" "$expected" "$found"
}

# Without a server there is nothing to wait for.
resaga saga list --limit 1 > /dev/null
