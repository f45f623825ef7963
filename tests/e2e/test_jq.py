"""Overrides that are jq expressions: what they make of a context, over HTTP, on the topic, in a batch and by the command line; what is refused."""

import pytest
from test_batch import FROM, WHO, submit, until

from checks import await_log, log_records
from jsontext import dumps, loads
from plan import replay_id
from resaga import run
from sagas import Story, failed, replay
from servers.process import wait_for

ENDLESS = "{n: last(.items[] as $a | .items[] as $b | .items[] as $c | .items[] as $d | .items[] as $e | .items[] as $f | $a)}"


def contexts(world):
    """As texts, numbers and order as they are written: of each original's newest restored saga."""
    texts = [m.value().decode() for m in world.log.read(world.restored)]
    texts.sort(key=lambda text: loads(text)["restored_at"])
    return {loads(text)["original_saga_id"]: text.split('"context":', 1)[1].split(',"force_failure"', 1)[0] for text in texts}


def test_an_expression_makes_the_context_of_a_replay(world):
    process = world.start()
    world.send(failed("order-1", zip="01", big=12345678901234567890, items=[{"price": 2}, {"price": 3}]).stream())
    world.await_caught_up()
    expression = ".total = ([.items[].price] | add) | .was = $saga.status | .result = $saga.results.reserve_inventory.id | .none = $item | del(.items)"
    request = replay("order-1", override={"jq": expression})
    dry = process.post("/v1/replays", dumps({**request, "dry_run": True}))
    assert dry.status == 200, dry.body
    answer = process.post("/v1/replays", dumps(request))
    assert answer.status == 202, answer.body
    await_log(world, [replay_id(request["request_id"], "order-1")])
    text = '{"amount":99.50,"zip":"01","big":12345678901234567890,"reserve_inventory":true,"total":5,"was":"running","result":"r-reserve_inventory","none":null}'
    assert contexts(world) == {"order-1": text}
    # The dry run told the same, and the log names what changed.
    assert dumps(dry.body["plan"]["context"]).replace(" ", "") == text
    record = log_records(world)[replay_id(request["request_id"], "order-1")]
    assert record["changed"] == ["/total", "/was", "/result", "/none", "/items"]
    # Over the topic.
    again = replay("order-1", override={"jq": "{amount}"}, allow_repeat=True)
    world.log.send(world.requests, "order-1", again)
    world.log.flush()
    await_log(world, [replay_id(again["request_id"], "order-1")])
    assert contexts(world) == {"order-1": '{"amount":99.50}'}


@pytest.mark.parametrize("expression, says", [
    ("range(3)", "range is not allowed: it may not end at character 1"),
    (". + {home: $ENV.HOME}", "variable $ENV is not known at character 12"),
    ("{n: now}", "now is not allowed"),
    ("def f: f; f", "f reaches itself"),
    (". | }", "unexpected text at character 5"),
    (".amount", "gave number instead of an object"),
    ("., .", "more than one value"),
    ("empty", "gave nothing"),
    (".secret | error", "the expression raised an error: string"),
    (".amount.x", "cannot index number with string"),
    (ENDLESS, "took longer than [limits] max_expression, 1s"),
    ("reduce .items[] as $x (\"x\"; . + .) | {n: .}", "too much memory"),
    (5, "not a text"),
])
def test_what_gives_no_object_is_refused_and_no_value_is_told(world, expression, says):
    process = world.start()
    world.send(failed("order-1", secret="tok_secret", items=list(range(50))).stream())
    world.await_caught_up()
    answer = process.post("/v1/replays", dumps(replay("order-1", override={"jq": expression})))
    assert (answer.status, answer.code) == (422, "override_invalid"), answer.body
    assert says in answer.body["detail"] and "tok_secret" not in dumps(answer.body), answer.body
    # On the topic the same; the next request is carried out all the same.
    refused, good = replay("order-1", override={"jq": expression}), replay("order-1", override={"jq": ". + {good: true}"})
    for request in [refused, good]:
        world.log.send(world.requests, "order-1", request)
    world.log.flush()
    await_log(world, [replay_id(request["request_id"], "order-1") for request in [refused, good]])
    record = log_records(world)[replay_id(refused["request_id"], "order-1")]
    assert (record["status"], record["code"]) == ("refused", "override_invalid") and says in record["message"], record
    assert '"good":true' in contexts(world)["order-1"]


def test_a_batch_gives_each_saga_its_item(world):
    process = world.start()
    names = [f"order-{number}" for number in range(20)]
    for name in names:
        world.send(failed(name).stream())
    world.await_caught_up()
    items = {name: {"token": f"tok-{name}", "n": number} for number, name in enumerate(names)}
    # An override, which is applied as well, and values that are no objects.
    items |= {"order-1": {"merge": {"merged": True}}, "order-2": "text", "order-3": 3, "order-4": {"jq": ". + {own: ($item | keys[0])}"}}
    del items["order-19"]
    batch = {"saga_ids": names, "override": {"jq": ".item = $item | .id = $saga.saga_id"}, "overrides": items, **FROM}
    plan = process.post("/v1/batches", dumps({"batch": {**batch, "dry_run": True}, **WHO}), timeout=60)
    assert plan.status == 200 and int(plan.body["counts"]["replay"]) == 19, plan.body
    batch_id = submit(process, {"plan_id": plan.body["plan_id"]})
    until(process, batch_id, "published")
    wait_for("restored sagas", lambda: len(contexts(world)) == 19, 30)
    got = {name: loads(text) for name, text in contexts(world).items()}
    base = {"amount": got["order-0"]["amount"], "reserve_inventory": True}
    for name, item in items.items():
        more = {"order-1": {"merged": True}, "order-4": {"own": "jq"}}.get(name, {})
        assert loads(dumps(got[name])) == loads(dumps({**base, "item": item, "id": name, **more})), name
    codes = {record["original_saga_id"]: record["code"] for record in log_records(world).values() if record["status"] == "refused"}
    assert codes == {"order-19": "override_missing"}
    # Other values go with an expression only.
    answer = process.post("/v1/batches", dumps({"batch": {**batch, "override": {"merge": {}}}, **WHO}))
    assert (answer.status, answer.code) == (400, "request_invalid"), answer.body
    # A retry may bring another expression, and sees the items that the batch had.
    for name, saga in ((m.key().decode(), loads(m.value().decode())) for m in world.log.read(world.restored)):
        kind = "SAGA_FAILED" if saga["original_saga_id"] == "order-5" else "SAGA_COMPLETED"
        world.log.send(world.events, name, {"event_id": f"{name}/end", "saga_id": name, "saga_name": "order-processing", "kind": kind})
    world.log.flush()
    until(process, batch_id, "done")
    answer = process.post(f"/v1/batches/{batch_id}/retry-failed", dumps({**WHO, "override": {"jq": "{second: $item.token}"}}))
    assert answer.status == 202, answer.body
    wait_for("the retry", lambda: contexts(world)["order-5"] == '{"second":"tok-order-5"}', 60)


def test_the_command_line_takes_expressions(world):
    process = world.start()
    world.send(Story("order-1").start().done("reserve_inventory").broken("charge_payment").event("SAGA_FAILED", "charge_payment").stream())
    world.await_caught_up()
    server = ["--server", f"http://127.0.0.1:{process.port}", "--reason", "INC-4412"]
    program = world.directory / "change.jq"
    program.write_text("# More than one line\n.amount\n| {amount: .}\n")
    done = run(["replay", "run", "order-1", "--latest", "--jq", f"@{program}", "-o", "json", *server], world.settings)
    assert done.returncode == 0, done
    wait_for("the restored saga", lambda: contexts(world) == {"order-1": '{"amount":99.50}'}, 30)
    wrong = run(["replay", "run", "order-1", "--latest", "--allow-repeat", "--jq", "input", *server], world.settings)
    assert wrong.returncode == 4 and "input is not allowed" in wrong.stderr, wrong
    table = world.directory / "tokens.csv"
    table.write_text("saga_id,token,n:\norder-1,tok-1,1.50\n")
    flags = ["--overrides", f"@{table}", "--jq", ".t = $item", "--latest", "--allow-repeat", "--confirm", "1"]
    ran = run(["batch", "run", *flags, "-o", "json", *server], world.settings)
    assert ran.returncode == 0, ran
    wait_for("the batch", lambda: '"t":{"token":"tok-1","n":1.50}' in contexts(world)["order-1"], 60)
