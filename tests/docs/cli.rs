//! docs/interface/cli.md: the tree of commands, as clap has it. What is hidden from the help is not on the page.

use clap::{Arg, Command};

use crate::pages::{check_file, code, generated, table};

const PAGE: &str = "docs/interface/cli.md";

const INTRO: &str = "\
`resaga COMMAND --help` says the same. Commands that look at sagas and replays speak [HTTP](http.md) to `--server`; `serve`, `demo`,
`doctor`, `topic`, `config` and `store` read the [configuration](configuration.md) and work from this machine.

Data goes to stdout in the format of `--output`, everything else to stderr. `json` is the answer whole; `jsonl` one item a line
and nothing for the page itself; `csv` the columns of the table. With a JSON format a failure is one line of JSON on stderr,
`{\"error\":{\"code\",\"message\",\"hint\"}}`. Lists go on over as many pages as `--limit` takes; what is left is said on stderr with
the cursor for `--after`.

A *time* is RFC 3339 with a zone, `now`, or relative: `-2h`, `+5m`, `90m ago`. A *duration* has its unit: `30s`, `90m`, `2h`.
";

#[test]
fn the_page_of_the_command_line_is_what_clap_has() {
    check_file(PAGE, &render());
}

fn render() -> String {
    let mut root = resaga::cli::command();
    root.build();
    let mut out = generated("Command line", "src/cli");
    out += INTRO;
    out += "\n## Exit codes\n\n";
    let exits = resaga::cli::exit_codes().into_iter().map(|(number, meaning)| vec![number.to_string(), meaning.to_owned()]);
    out += &table(&["code", "meaning"], exits);
    out += "\nWhich refusal gives which code: [problem codes](http.md#problem-codes). How `serve` ends: [codes](codes.md#at-the-start).\n";
    out += "\n## Options of every command\n\n";
    out += &options(&root, |arg| arg.is_global_set());
    out += "\n## Commands\n\n";
    let mut leaves = Vec::new();
    collect(&root, &mut leaves);
    let summary = |command: &&Command| vec![format!("[`{}`](#{})", name(command), anchor(&name(command))), about(command)];
    out += &table(&["command", ""], leaves.iter().map(summary));
    for command in leaves {
        out += &section(command);
    }
    out
}

/// Commands that do something, in the order of the help.
fn collect<'c>(command: &'c Command, leaves: &mut Vec<&'c Command>) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        if sub.has_subcommands() { collect(sub, leaves) } else { leaves.push(sub) }
    }
}

fn name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn anchor(name: &str) -> String {
    name.replace(' ', "-")
}

fn about(command: &Command) -> String {
    command.get_about().map(|text| sentence(&text.to_string())).unwrap_or_default()
}

fn section(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let mut out = format!("\n### {}\n\n", name(command));
    if !about(command).is_empty() {
        out += &format!("{}\n\n", about(command));
    }
    out += &format!("```\n{usage}\n```\n");
    if command.get_arguments().any(is_own) {
        out += &format!("\n{}", options(command, is_own));
    }
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let examples: Vec<&str> = examples.lines().map(str::trim).filter(|line| line.starts_with("resaga ")).collect();
    if !examples.is_empty() {
        out += &format!("\nFor example:\n\n```\n{}\n```\n", examples.join("\n"));
    }
    out
}

fn is_own(arg: &Arg) -> bool {
    !arg.is_global_set() && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn options(command: &Command, which: impl Fn(&Arg) -> bool) -> String {
    let row = |arg: &Arg| {
        let said = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (said, environment) = take_bracket(&said, "env");
        let (said, default) = take_bracket(&said, "default");
        let set: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let default = default.unwrap_or_else(|| if takes_value(arg) { set.join(",") } else { String::new() });
        let mut meaning = vec![sentence(&said)];
        let values: Vec<_> = arg.get_possible_values().iter().map(|value| code(value.get_name())).collect();
        if takes_value(arg) && !values.is_empty() {
            meaning.push(format!("One of {}.", values.join(", ")));
        }
        let excludes: Vec<_> = command.get_arg_conflicts_with(arg).into_iter().map(|other| code(&flag(other))).collect();
        if !excludes.is_empty() {
            meaning.push(format!("Not with {}.", excludes.join(", ")));
        }
        let aliases: Vec<_> =
            arg.get_visible_aliases().unwrap_or_default().iter().map(|name| code(&format!("--{name}"))).collect();
        if !aliases.is_empty() {
            meaning.push(format!("Also {}.", aliases.join(", ")));
        }
        let environment = environment.map(|name| format!("Variable `{name}`.")).unwrap_or_default();
        meaning.push(environment);
        meaning.retain(|part| !part.is_empty());
        let required = if arg.is_required_set() { "required".to_owned() } else { code(&default) };
        vec![code(&shown(arg)), required, meaning.join(" ")]
    };
    table(&["argument", "default", "meaning"], command.get_arguments().filter(|arg| which(arg)).map(row))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn flag(arg: &Arg) -> String {
    match (arg.get_long(), arg.is_positional()) {
        (Some(long), _) => format!("--{long}"),
        (None, true) => arg.get_id().to_string().to_uppercase(),
        (None, false) => format!("-{}", arg.get_short().unwrap_or_default()),
    }
}

fn shown(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let value = names.first().map_or_else(|| arg.get_id().to_string().to_uppercase(), ToString::to_string);
    let value = value.replace('-', "_");
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let short = arg.get_short().filter(|_| arg.get_long().is_some()).map(|short| format!("-{short}, ")).unwrap_or_default();
    match (arg.is_positional(), takes_value(arg)) {
        (true, _) => format!("<{value}>"),
        (false, false) => format!("{short}{}", flag(arg)),
        (false, true) if arg.is_require_equals_set() => format!("{short}{}[=<{value}>]", flag(arg)),
        (false, true) if optional => format!("{short}{} [<{value}>]", flag(arg)),
        (false, true) => format!("{short}{} <{value}>", flag(arg)),
    }
}

/// The text without its `[what: value]`, and the value.
fn take_bracket(text: &str, what: &str) -> (String, Option<String>) {
    let opening = format!("[{what}: ");
    let Some((before, rest)) = text.split_once(&opening) else { return (text.to_owned(), None) };
    let Some((value, after)) = rest.split_once(']') else { return (text.to_owned(), None) };
    (format!("{}{}", before.trim_end(), after.trim_end()), Some(value.to_owned()))
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

#[test]
fn what_is_hidden_is_not_on_the_page() {
    let root = Command::new("x").subcommand(Command::new("a").hide(true)).subcommand(Command::new("b"));
    let mut leaves = Vec::new();
    collect(&root, &mut leaves);
    assert_eq!(leaves.iter().map(|leaf| leaf.get_name()).collect::<Vec<_>>(), ["b"]);
}
