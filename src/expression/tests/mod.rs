//! The language: what it gives, what it refuses, and that nothing it is given takes more than it may.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::compile::Language;
use super::evaluate::{Failure, evaluate};
use super::*;
use crate::saga::json::Json;

const BOUNDS: Bounds = Bounds { time: Duration::from_millis(500), max_bytes: 4 << 20 };

fn input(context: &str) -> Input {
    let saga = Json::from_valid(r#"{"saga_id":"order-1","status":"failed","results":{"reserve":{"id":"r-9"}}}"#);
    Input { context: Json::from_valid(context), saga, item: Json::from_valid(r#"{"token":"tok_1"}"#) }
}

/// On a thread as the evaluator has one.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(evaluator::STACK).spawn_scoped(scope, work);
        thread.expect("a thread").join().expect("no panic")
    })
}

fn applied(expression: &str, context: &str) -> Result<String, Failure> {
    let compiled = Language::new().compile(expression)?;
    evaluate(&compiled, &input(context), BOUNDS).map(|json| json.as_str().to_owned())
}

/// What one value `expression` gives, inside an object.
fn value(expression: &str, context: &str) -> String {
    let object = applied(&format!("{{v:({expression})}}"), context).unwrap_or_else(|e| panic!("{expression}: {e}"));
    object.strip_prefix(r#"{"v":"#).and_then(|rest| rest.strip_suffix('}')).expect("one member").to_owned()
}

fn why(expression: &str, context: &str) -> String {
    match applied(expression, context) {
        Ok(text) => panic!("{expression} gave {text}"),
        Err(failure) => failure.to_string(),
    }
}

#[test]
fn what_is_passed_on_keeps_its_text_and_its_order() {
    let context = r#"{"z":1.10,"b":12345678901234567890,"a":[1E5,-0,1e-7,0.10,-0.0,123456789012345678901234567890123456789012345.0],"é":"\ud83d\ude9a\"\n","c":{"y":null,"x":true}}"#;
    let written = context.replace(r"\ud83d\ude9a", "🚚");
    assert_eq!(applied(".", context), Ok(written.clone()));
    assert_eq!(applied(". + {}", context), Ok(written.clone()));
    assert_eq!(applied("with_entries(.)", context), Ok(written.clone()));
    assert_eq!(applied("map_values(.)", context), Ok(written.clone()));
    assert_eq!(applied("tojson | fromjson", context), Ok(written));
    assert_eq!(applied(".b = 1 | .z |= .", r#"{"z":1.10,"b":2,"a":3}"#).as_deref(), Ok(r#"{"z":1.10,"b":1,"a":3}"#));
    assert_eq!(applied("del(.b)", r#"{"z":1,"b":2,"a":3,"c":4}"#).as_deref(), Ok(r#"{"z":1,"a":3,"c":4}"#));
    assert_eq!(applied(". + {n: 1.50, m: .n}", r#"{"z":1,"n":{}}"#).as_deref(), Ok(r#"{"z":1,"n":1.50,"m":{}}"#));
}

#[test]
fn an_override_is_computed_from_context_saga_and_item() {
    let context = r#"{"amount":99.50,"items":[{"sku":"a","n":2},{"sku":"b","n":1}]}"#;
    let cases = [
        (
            ".payment_token = $item.token",
            r#"{"amount":99.50,"items":[{"sku":"a","n":2},{"sku":"b","n":1}],"payment_token":"tok_1"}"#,
        ),
        (
            ". + {from: $saga.saga_id, r: $saga.results.reserve.id} | del(.items)",
            r#"{"amount":99.50,"from":"order-1","r":"r-9"}"#,
        ),
        (r#"{count: (.items | map(.n) | add), skus: ([.items[].sku] | join(","))}"#, r#"{"count":3,"skus":"a,b"}"#),
        (".items |= map(select(.n > 1)) | {items}", r#"{"items":[{"sku":"a","n":2}]}"#),
        ("if $saga.status == \"failed\" then {retry: true} else . end", r#"{"retry":true}"#),
        ("def twice(f): f | f; {n: (1 | twice(. + 1))}", r#"{"n":3}"#),
        ("reduce .items[] as {sku: $s, n: $n} ({}; .[$s] = $n)", r#"{"a":2,"b":1}"#),
        (
            "{a: (.missing // \"none\"), b: (try error(\"x\") catch .), c: [.items[]?.none?]}",
            r#"{"a":"none","b":"x","c":[null,null]}"#,
        ),
        (
            "label $out | foreach .items[] as $i (0; . + $i.n; if . > 1 then {total: .}, break $out else empty end)",
            r#"{"total":2}"#,
        ),
        (".a.b.c = 1 | {a}", r#"{"a":{"b":{"c":1}}}"#),
        (".list[2] = 1 | {list}", r#"{"list":[null,null,1]}"#),
    ];
    for (expression, expected) in cases {
        assert_eq!(applied(expression, context).as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn functions_give_what_jq_gives() {
    let context = r#"{"s":"a,b,c","n":[3,1,2],"o":{"b":1,"a":2},"d":[{"k":1,"v":"x"},{"k":2,"v":"y"},{"k":1,"v":"z"}]}"#;
    let cases = [
        (".s | split(\",\")", r#"["a","b","c"]"#),
        (".s | ascii_upcase | ltrimstr(\"A,\") | rtrimstr(\"C\")", r#""B,""#),
        (".n | sort", "[1,2,3]"),
        (".n | [min, max, add, length, first, last]", "[1,3,6,3,3,2]"),
        (".n | map(. * 2) | reverse", "[4,2,6]"),
        (".n[1:] + .n[:-2] + .n[-1:]", "[1,2,3,2]"),
        (".n | .[1:] = [9] | .[0] |= . + 1", "[4,9]"),
        (".n | [index(2), has(5), contains([1])]", "[2,false,true]"),
        ("[.o | keys, keys_unsorted]", r#"[["a","b"],["b","a"]]"#),
        (".o | to_entries", r#"[{"key":"b","value":1},{"key":"a","value":2}]"#),
        (".o | with_entries(.value += 1)", r#"{"b":2,"a":3}"#),
        (".d | group_by(.k) | map(length)", "[2,1]"),
        (".d | sort_by(.k) | map(.v)", r#"["x","z","y"]"#),
        (".d | unique_by(.k) | map(.v)", r#"["x","y"]"#),
        (".d | [min_by(.k).v, max_by(.k).v]", r#"["x","y"]"#),
        ("[[1,[2]],3] | flatten", "[1,2,3]"),
        ("[1,2,2] - [2]", "[1]"),
        ("[[1,2],[3]] | transpose", "[[1,3],[2,null]]"),
        ("[paths] | length", "18"),
        (".o | getpath([\"a\"])", "2"),
        ("{} | setpath([\"x\",\"y\"]; 1)", r#"{"x":{"y":1}}"#),
        (".d | delpaths([[0],[2]]) | map(.v)", r#"["y"]"#),
        (".d[0] | pick(.v)", r#"{"v":"x"}"#),
        ("{a:{b:1}} * {a:{c:2}}", r#"{"a":{"b":1,"c":2}}"#),
        ("[.n[] | tostring] | join(\"-\")", r#""3-1-2""#),
        ("\"n=\\(.n) \\(.s)\"", r#""n=[3,1,2] a,b,c""#),
        ("@base64 \"x\\(.s)\"", r#""xYSxiLGM=""#),
        ("\"YSxi\" | @base64d", r#""a,b""#),
        ("\"a b/é\" | @uri", r#""a%20b%2F%C3%A9""#),
        (
            "[6 / 2, 7 / 2, 7 % 4, -7 % 4, 1.5 + 1.5, 0.1 + 0.2, 12345678901234567890 + 1, 1e300]",
            "[3,3.5,3,-3,3,0.30000000000000004,12345678901234567891,1e300]",
        ),
        ("[1.5, -1.5, 2 | floor, ceil, round]", "[1,2,2,-2,-1,-2,2,2,2]"),
        ("[\"12\", \"1.50\" | tonumber]", "[12,1.50]"),
        ("[null,false,true,0,\"\",[],{}] | map(type)", r#"["null","boolean","boolean","number","string","array","object"]"#),
        ("[{},[],\"\",0,true,false,null] | sort", r#"[null,false,true,0,"",[],{}]"#),
        ("[1,1.0,1e0] | unique | length", "1"),
        ("[12345678901234567890,12345678901234567891] | unique | length", "2"),
        ("\"abcabc\" | [indices(\"bc\"), index(\"c\"), rindex(\"c\")]", "[[1,4],2,5]"),
        ("\"äbc\" | [length, utf8bytelength, .[1:2], explode]", r#"[3,4,"b",[228,98,99]]"#),
        ("[.n[] | if . > 2 then \"big\" elif . > 1 then \"mid\" else \"small\" end]", r#"["big","small","mid"]"#),
        ("[any(.n[]; . > 2), all(.n[]; . > 2), isempty(empty)]", "[true,false,true]"),
        ("\"ab\" * 2", r#""abab""#),
        ("[.. | numbers] | add", "13"),
    ];
    for (expression, expected) in cases {
        assert_eq!(value(expression, context), expected, "{expression}");
    }
}

#[test]
fn every_function_that_may_not_end_or_looks_outside_is_refused_and_named() {
    let refused = [
        "range(3)",
        "range(0; 3)",
        "range(0; 3; 1)",
        "repeat(.)",
        "while(true; .)",
        "until(false; .)",
        "recurse(.)",
        "recurse(.a; true)",
        "limit(3; .)",
        "combinations",
        "combinations(3)",
        "walk(.)",
        "input",
        "inputs",
        "env",
        "now",
        "halt",
        "halt_error",
        "halt_error(1)",
        "debug",
        "debug(1)",
        "stderr",
        "localtime",
        "input_filename",
        "nosuch(1; 2)",
        "error_empty",
        "_flat",
        "key_values",
        "@sh",
    ];
    for name in refused {
        let plain = name.split('(').next().expect("a name");
        for expression in [format!(". | {name}"), format!("{{a: [\"\\({name})\"]}}"), format!("def f: {name}; .")] {
            let text = why(&expression, "{}");
            let at = expression.find(plain).expect("there") + 1;
            assert!(text.starts_with(plain) && text.ends_with(&format!("at character {at}")), "{expression}: {text}");
        }
    }
    for (expression, text) in [
        ("$ENV.HOME", "variable $ENV is not known at character 1"),
        (". + $x", "variable $x is not known at character 5"),
        ("{a: $__loc__}", "variable $__loc__ is not known at character 5"),
        ("break $x", "label $x is not known at character 7"),
        ("import \"a\" as a; .", "unexpected text at character 8"),
        ("", "the expression ends too early"),
        (". +", "the expression ends too early"),
        ("(.", "the expression ends too early"),
        (". | }", "unexpected text at character 5"),
        ("é | .a b", "unexpected text at character 1"),
    ] {
        assert_eq!(why(expression, "{}"), text, "{expression}");
    }
    assert_eq!(applied("def range: {own: 1}; range", "{}").as_deref(), Ok(r#"{"own":1}"#));
}

#[test]
fn the_page_lists_every_function_there_is() {
    let page = include_str!("../../../docs/interface/requests.md");
    let (_, list) = page.split_once("so are these functions:").expect("the list");
    let (list, _) = list.split_once("Refused before it runs").expect("its end");
    let listed: BTreeSet<&str> = list.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '@').collect();
    let (listed, there) = (listed.into_iter().filter(|name| !matches!(*name, "" | "and")).collect(), Language::new().names());
    assert_eq!(there, listed);
}

#[test]
fn a_definition_that_reaches_itself_is_refused() {
    for expression in [
        "def f: f; f",
        "def f: .; def f: f; f",
        "def f: def g: f; g; f",
        "def f(g): g | f(g); f(.)",
        "def f: .a | [f]; .",
        "def f: reduce .[] as $x (.; f); .",
        "def f($x): if $x > 0 then f($x - 1) else . end; f(3)",
        "def f: {(f): 1}; .",
        "def f: .[f]; .",
        "def f: \"\\(f)\"; .",
        "def f: . as {(f): $x} | .; .",
    ] {
        assert!(why(expression, "{}").contains("f reaches itself and may not end"), "{expression}");
    }
    for expression in ["def f(g): g; f(f(.))", "def f: .; def g: f; f | g", "def f(f): f; f(.)"] {
        assert_eq!(applied(expression, "{}").as_deref(), Ok("{}"), "{expression}");
    }
}

#[test]
fn exactly_one_object_comes_out_and_no_message_has_a_value() {
    let context = r#"{"secret":"tok_secret","n":1}"#;
    for (expression, text) in [
        ("empty", "the expression gave nothing instead of one object"),
        ("., .", "the expression gave more than one value instead of one object"),
        (".secret", "the expression gave string instead of an object"),
        ("[.]", "the expression gave array instead of an object"),
        ("null", "the expression gave null instead of an object"),
        ("error", "the expression raised an error: object"),
        ("error(.secret)", "the expression raised an error: string"),
        (".secret + 1", "the expression raised an error: cannot calculate string + number"),
        (".secret.x", "the expression raised an error: cannot index string with string"),
        (".secret[]", "the expression raised an error: cannot use string as array or object"),
        ("{a: (.n / 0)}", "the expression raised an error: string"),
        ("{a: (1e308 * 10)}", "the expression gave a number that JSON does not have"),
        ("., error(.secret)", "the expression raised an error: string"),
    ] {
        assert_eq!(why(expression, context), text, "{expression}");
    }
}

#[test]
fn what_goes_on_too_long_is_stopped_in_time_and_what_grows_too_far_at_once() {
    let numbers: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let context = format!(r#"{{"a":[{}]}}"#, numbers.join(","));
    let doubling = (0..40).fold("def d0: ., .;".to_owned(), |text, n| format!("{text} def d{}: d{n} | d{n};", n + 1));
    let cases = [
        "{n: ([.a[] as $x | .a[] as $y | .a[] as $z | select($x + $y + $z < 0)] | length)}".to_owned(),
        "[.a[] as $x | .a[] as $y | .a[] as $z | try error catch empty] | {n: length}".to_owned(),
        "{n: ([.a[] | [.]] as $l | [$l[] as $x | $l[] as $y | $l[] as $z | ($x + $y)?] | length)}".to_owned(),
        "last(.a[] as $x | .a[] as $y | .a[] as $z | .)".to_owned(),
        format!("{doubling} last(d40)"),
        format!("{doubling} d40 | empty"),
        format!("{doubling} d40 | .x?.y? | select(.)"),
        format!("{doubling} {{n: ([d40 | 1] | length)}}"),
        "reduce .a[] as $x (\"x\"; . + .) | {n: length}".to_owned(),
        "reduce .a[] as $x ([0]; . + .) | {n: length}".to_owned(),
        "reduce .a[] as $x (.; [., .]) | {n: tojson | length}".to_owned(),
        "reduce .a[] as $x (.; {a: ., b: .}) | .".to_owned(),
        "reduce .a[] as $x (1; [.]) | {n: .}".to_owned(),
        "reduce .a[] as $x (.; .a = .) | .".to_owned(),
        "{n: (\"x\" * 1e12)}".to_owned(),
        "{n: (\"x\" * 99999999999)}".to_owned(),
        ".a[1e15] = 1".to_owned(),
        "[.a[] as $x | .a | . + [$x]] | {n: length}".to_owned(),
        "[.a[] as $x | .a[] as $y | [.a] | contains([[$x, $y]])] | {n: length}".to_owned(),
        "{n: ([.a[] as $x | .a | sort_by(-.)] | length)}".to_owned(),
        "reduce .a[] as $x (9; . * .) | {n: .}".to_owned(),
        "[\"9\" * 1000000 | tonumber] | {n: (.[0] + 1)}".to_owned(),
    ];
    for expression in cases {
        let start = Instant::now();
        let outcome = on_a_thread(|| applied(&expression, &context));
        let shown = expression.chars().rev().take(60).collect::<String>().chars().rev().collect::<String>();
        println!(
            "{:>8.1?} {} <- {shown}",
            start.elapsed(),
            outcome.as_ref().map_or_else(ToString::to_string, |t| t.len().to_string())
        );
        assert!(start.elapsed() < Duration::from_secs(3), "{shown}");
        assert!(
            matches!(
                outcome,
                Err(Failure::TimedOut(_) | Failure::TooMuchMemory | Failure::NoJson | Failure::TooDeep | Failure::Raised(_))
                    | Ok(_)
            ),
            "{shown}: {outcome:?}"
        );
    }
    assert!(matches!(
        applied("{n: ([.a[] as $x | .a[] as $y | .a[] as $z | select($x + $y + $z < 0)] | length)}", &context),
        Err(Failure::TimedOut(_))
    ));
    let long = format!(r#"{{"a":[{}]}}"#, vec!["1"; 30_000].join(","));
    let work = || applied("{n: (reduce .a[] as $x (0; . + $x)), l: ([.a[] | . + 1] | length)}", &long);
    assert_eq!(on_a_thread(work).as_deref(), Ok(r#"{"n":30000,"l":30000}"#));
}

#[test]
fn an_expression_that_nests_as_far_as_it_may_does_not_exhaust_the_stack() {
    let most = compile::MAX_BYTES;
    let nested = |open: &str, inner: &str, close: &str| {
        let times = (most - inner.len()) / (open.len() + close.len());
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let cases = [
        nested("(", ".", ")"),
        nested("[", ".", "]"),
        nested("{a:", ".", "}"),
        nested("-", "1", ""),
        nested(".|", ".", ""),
        nested(".,", ".", ""),
        nested(".+", ".", ""),
        nested("try ", ".", ""),
        nested("\"\\(", ".", ")\""),
        nested("if . then ", ".", " else . end"),
        nested("def f:", ".", ";."),
        nested("", ".", ".a"),
        nested("", ".", "[]"),
        nested("", ".", "[.]"),
        nested("[", "", ""),
        nested(". as $x|", ".", ""),
        nested("reduce . as $x (.;", ".", ")"),
        nested("first(", ".", ")"),
        nested("map(", ".", ")"),
        nested(".a|=(", ".", ")"),
        nested("label $x|", ".", ""),
    ];
    for expression in cases {
        let start = Instant::now();
        let outcome = on_a_thread(|| applied(&expression, r#"{"a":[1]}"#));
        println!("{:>8.1?} {:.20} {:.60}", start.elapsed(), expression, format!("{outcome:?}"));
    }
    assert!(why(&" ".repeat(most + 1), "{}").contains("are allowed"));
}

#[tokio::test]
async fn the_thread_is_used_again_and_a_failure_ends_nothing() {
    let evaluator = Evaluator::new(Bounds { time: Duration::from_millis(100), max_bytes: 20 });
    let gave = |expression: &'static str| {
        let evaluator = evaluator.clone();
        async move { evaluator.evaluate(expression, input(r#"{"a":1.10}"#)).await.expect("no bug") }
    };
    for _ in 0..3 {
        assert_eq!(gave(". + {b: 2}").await.map(|json| json.as_str().to_owned()).as_deref(), Ok(r#"{"a":1.10,"b":2}"#));
        assert!(matches!(gave("range(1)").await, Err(Failure::Wrong(_))));
        assert_eq!(gave("{a: (\"x\" * 30)}").await, Err(Failure::TooLarge(20)));
        let endless = "[1,2,3,4,5,6,7,8,9] as $l | last($l[] as $a | $l[] as $b | $l[] as $c | $l[] as $d | $l[] as $e | $l[] as $f | $l[] as $g | $l[] as $h | $l[] as $i | .)";
        assert!(matches!(gave(endless).await, Err(Failure::TimedOut(_))));
    }
}

proptest! {
    #[test]
    fn whatever_is_passed_through_stays_as_it_is(value in crate::wire::testing::object()) {
        prop_assert_eq!(applied(".", value.as_str()), applied("map_values(.)", value.as_str()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-.,|a-z$()\\[\\]{}:;\"\\\\ 0-9=+*/?@#]{0,40}") {
        let outcome = applied(&text, r#"{"a":[1,2],"b":"x"}"#);
        prop_assert!(outcome != Err(Failure::Failed));
    }
}
