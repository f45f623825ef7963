//! docs/interface/configuration.md and config/resaga.toml: every setting with its default, from the table of the settings.

use resaga::config::{SettingReference, reference};

use crate::pages::{check_file, code, generated, table};

const PAGE: &str = "docs/interface/configuration.md";
const FILE: &str = "config/resaga.toml";
/// Of the commented file, `# ` included.
const WIDTH: usize = 120;

const INTRO: &str = "\
One TOML file: that of `--config`, else of `RESAGA_CONFIG`, else `resaga.toml` in the working directory if there is one.
`resaga config init` prints [one with every default](../../config/resaga.toml), `config check` says everything that is wrong with
one, `config show` every value and where it came from. An unknown key is an error that names the nearest one.

Each key is also an environment variable, and a flag `--setting KEY=VALUE`. A flag beats the environment, which beats the file,
which beats the default. In variables and flags a list is comma separated, text stands without quotes.

Durations and sizes are text with a unit: `\"250ms\"`, `\"30s\"`, `\"1h\"`, `\"30d\"`; `\"1000B\"`, `\"64KiB\"`, `\"1MiB\"`. A bare number is
refused.
";

const FREE: &str = "\
Keys with a free part:

- `kafka.properties.\"NAME\"`: any librdkafka property, except those on which the guarantees stand (those are refused by name). Text,
  number, or true or false. As a variable `_` stands for `.`: `RESAGA__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS`.
- `snapshots.saga.\"NAME\".policy` and `.retention`: for one saga name. As a variable the name keeps its case:
  `RESAGA__SNAPSHOTS__SAGA__orders__POLICY`.
- `stuck.saga.\"NAME\".after`: the same of `stuck.after`.
- `saga.\"NAME\".effects.\"STEP\"`: what a step does outside, in words: `charge_payment = \"charges the card\"`. Dry runs, plans of batches
  and the question before a batch say which of them happen again, and how often. As a variable both names keep their case:
  `RESAGA__SAGA__orders__EFFECTS__charge_payment`.

Variables of the [command line](cli.md) (`RESAGA_SERVER`, `RESAGA_OUTPUT`, `RESAGA_CONFIG`, `RESAGA_REASON`) are no settings. S3
credentials come from the AWS variables, files or instance roles.
";

const HEAD: &str = "\
# resaga's settings, every key with its default: take the '#' from those to change. Written by tests/docs from the settings.
#
# Each key is also an environment variable with '__' between the levels, RESAGA__KAFKA__BROKERS; lists are comma
# separated there. Flags (--setting kafka.brokers=...) beat the environment, it beats this file, this file beats the defaults.
# Durations and sizes carry their unit: \"30s\", \"1h\", \"30d\"; \"64KiB\", \"1MiB\". `resaga config check` tells what is wrong.
";

#[test]
fn the_page_of_the_configuration_is_what_the_settings_are() {
    let mut out = generated("Configuration", "src/config/settings.rs");
    out += INTRO;
    for (section, settings) in sections() {
        out += &format!("\n## {section}\n\n");
        let row = |setting: &SettingReference| {
            let default = if setting.default == "\"\"" { "empty".to_owned() } else { code(&setting.default) };
            vec![code(setting.key), setting.kind.to_owned(), default, code(&variable(setting.key)), setting.meaning.to_owned()]
        };
        out += &table(&["key", "type", "default", "variable", "meaning"], settings.iter().map(row));
    }
    check_file(PAGE, &format!("{out}\n{FREE}"));
}

#[test]
fn the_commented_file_has_every_setting() {
    let mut out = HEAD.to_owned();
    for (section, settings) in sections() {
        out += &format!("\n[{section}]\n");
        for setting in settings {
            let (_, name) = setting.key.split_once('.').expect("section.name");
            out += &format!("{}#{name} = {}\n", comment(setting.meaning), setting.default);
        }
        out += match section {
            "kafka" => {
                "# Any librdkafka property; as a variable '_' stands for '.': RESAGA__KAFKA__PROPERTIES__SESSION_TIMEOUT_MS.\n#properties = {}\n"
            }
            "snapshots" => {
                "# Other values for one saga name:\n# [snapshots.saga.\"order-processing\"]\n# policy = \"every_event\"\n# retention = \"3650d\"\n"
            }
            "stuck" => {
                "# What steps do outside, by saga name: told before they run again.\n# [saga.\"order-processing\".effects]\n# charge_payment = \"charges the card\"\n"
            }
            _ => "",
        };
    }
    check_file(FILE, &out);
}

fn variable(key: &str) -> String {
    format!("RESAGA__{}", key.to_uppercase().replace('.', "__"))
}

/// In the order of the settings.
fn sections() -> Vec<(&'static str, Vec<SettingReference>)> {
    let mut sections: Vec<(&str, Vec<_>)> = Vec::new();
    for setting in reference() {
        let (section, _) = setting.key.split_once('.').expect("section.name");
        match sections.last_mut().filter(|(last, _)| *last == section) {
            Some((_, settings)) => settings.push(setting),
            None => sections.push((section, vec![setting])),
        }
    }
    sections
}

/// The text as comment lines that are not too long.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("# {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
