"""HTTP from outside: pages of other sites, slips in names, connections that never end, processes without the api, and the README's commands."""

import re
import shlex
import socket
from pathlib import Path

import times
from checks import await_log, log_records
from jsontext import dumps, loads
from plan import replay_id
from sagas import completed, failed, replay
from servers.process import wait_for

README = Path(__file__).resolve().parents[2] / "README.md"


def test_a_page_of_another_site_starts_nothing_and_a_slip_replays_nothing(world):
    process = world.start()
    world.send(failed("order-1").stream())
    world.await_caught_up()
    refused = {
        "another origin": ({"origin": "https://evil.example", "content-type": "text/plain"}, {}, 403, "cross_origin"),
        "a sandboxed page": ({"origin": "null"}, {}, 403, "cross_origin"),
        "another site": ({"sec-fetch-site": "cross-site"}, {}, 403, "cross_origin"),
        "another port": ({"origin": "http://127.0.0.1:3000"}, {}, 403, "cross_origin"),
        "a rebound name": ({"host": "evil.example"}, {}, 421, "host_not_allowed"),
        "a misspelt dry_run": ({}, {"dryrun": True}, 400, "request_invalid"),
        "a misspelt point": ({}, {"from": {"step": "charge_payment", "atempt": 1}}, 400, "request_invalid"),
        "a misspelt override": ({}, {"override": {"merge": {}, "mrege": {}}}, 400, "request_invalid"),
    }
    got = {what: process.post("/v1/replays", dumps({**replay("order-1"), **members}), headers=headers) for what, (headers, members, _, _) in refused.items()}
    assert {what: (answer.status, answer.code) for what, answer in got.items()} == {what: expected for what, (_, _, *expected) in refused.items() for expected in [tuple(expected)]}
    assert '"dry_run"' in got["a misspelt dry_run"].body["detail"] and '"from.attempt"' in got["a misspelt point"].body["detail"]
    slip = process.get("/v1/sagas?stauts=failed")
    assert (slip.status, slip.code) == (400, "request_invalid") and '"status"' in slip.body["detail"]
    assert process.request("GET", "/v1/sagas/order-1", headers={"host": "evil.example"}).status == 421
    assert not log_records(world) and not world.log.read(world.requests)
    # The page of this very host, and the topic, go on as before.
    own = {"origin": f"http://127.0.0.1:{process.port}", "sec-fetch-site": "same-origin"}
    assert process.post("/v1/replays", dumps(replay("order-1")), headers=own).status == 202
    ignored = replay("order-1", allow_repeat=True, dryrun=True)
    world.request(ignored)
    key = replay_id(ignored["request_id"], "order-1")
    assert await_log(world, [key])[key]["status"] == "published"


def connect(process, text):
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=10)
    connection.sendall(text)
    return connection


def closed_within(connection, seconds):
    """What came until the other side closed."""
    connection.settimeout(seconds)
    got = b""
    while part := connection.recv(65_536):
        got += part
    return got


def test_half_a_request_is_given_up_and_holds_up_no_shutdown(world):
    process = world.start("one", **{"api.peer_timeout": "1s"})
    head = b"POST /v1/replays HTTP/1.1\r\nHost: localhost\r\n"
    closed_within(connect(process, b"GET /livez HTTP/1.1\r\nHost: local"), 5)
    closed_within(connect(process, b""), 5)
    told = closed_within(connect(process, head + b"Content-Length: 100\r\n\r\n{"), 5)
    assert told.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in told, told
    code, _ = process.terminate()
    assert code == 0
    process = world.start("one", **{"api.max_connections": "3"})
    half = [connect(process, head), connect(process, head + b"Content-Length: 100\r\n\r\n{"), connect(process, b"")]
    code, seconds = process.terminate()
    assert code == 0 and seconds < 10, (code, seconds, process.tail())
    del half


def test_a_process_without_the_role_api_says_how_it_is(world):
    process = world.start(roles="materialize")
    assert process.get("/livez").status == 200
    assert process.get("/readyz").body["checks"]["materialize"] is True
    assert 'resaga_role_up{role="materialize"} 1' in process.get("/metrics").body
    refused = process.get("/v1/sagas")
    assert (refused.status, refused.code) == (404, "route_not_found")
    assert process.request("GET", "/metrics", headers={"host": "evil.example"}).status == 421
    # A second one on the same address says what to do.
    second = world.launch(roles="replay", **{})
    second.kill()
    second.settings["api.listen"] = f"127.0.0.1:{process.port}"
    second.launch()
    assert second.exited_within(45) == 2 and "api.listen" in second.tail()


def test_the_commands_of_the_readme_work(world):
    process = world.start()
    text = README.read_text()
    day = times.text(times.now())[:10]
    events = re.search(r"<<EOF\n(.*?)\nEOF", text, re.DOTALL)[1].replace("${day}", day)
    world.send((line.split("|", 1)[0], loads(line.split("|", 1)[1])) for line in events.splitlines())
    world.await_caught_up()
    section = text[text.index("### State at a time"):text.index("### Watch")]
    commands = [line.split("#")[0].replace("${day}", day) for line in section.splitlines() if line.startswith("resaga ")]
    assert len(commands) >= 7, commands
    for command in commands:
        said = world.run(*shlex.split(command)[1:], "--server", f"http://127.0.0.1:{process.port}")
        assert said.returncode == 0 and said.stdout.strip(), f"{command}\n{said.stdout}{said.stderr}"
    then = world.run(*shlex.split(next(c for c in commands if "--at" in c))[1:], "-o", "json", "--server", f"http://127.0.0.1:{process.port}")
    assert loads(then.stdout)["status"] == "running"
    listed = world.run(*shlex.split(next(c for c in commands if "saga list" in c))[1:], "-o", "json", "--server", f"http://127.0.0.1:{process.port}")
    assert [saga["saga_id"] for saga in loads(listed.stdout)["sagas"]] == ["order-1"]


def test_a_log_line_shows_no_text_that_others_wrote(world):
    process = world.start()
    world.send(completed("order-1").stream())
    forged = "x\n2026-01-01 ERROR forged\x1b[31m" + "y" * 500
    outcome = {"request_id": "o-1", "command": "OUTCOME", "saga_id": "order-1", "replay_id": forged, "requested_by": "me", "reason": "x",
               "outcome": {"saga_id": "other", "status": "failed", "sequence": 1, "ended_at": times.text(times.now())}}
    world.request(outcome)
    marker = replay("order-1")
    world.request(marker)
    await_log(world, [replay_id(marker["request_id"], "order-1")])
    lines = wait_for("the line", lambda: [line for line in process.tail(200).splitlines() if "outcome of a replay" in line], 10)
    assert len(lines) == 1 and len(lines[0]) < 400, lines
    assert not any(line.startswith("2026-01-01") or "\x1b" in line for line in process.tail(200).splitlines())
