//! `resaga config`: check, show and start a configuration.

use clap::Subcommand;
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{note, print};
use super::session::Session;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Reads the configuration and says what is wrong with it; asks no server.
    #[command(after_help = "Example:\n  resaga config check --config resaga.toml")]
    Check,
    /// Every key with its value and where that came from; secrets are hidden.
    #[command(after_help = "Example:\n  resaga config show -o json")]
    Show,
    /// Prints a commented configuration with every default.
    #[command(after_help = "Example:\n  resaga config init > resaga.toml")]
    Init,
}

pub fn run(session: &Session, command: Config) -> Result<(), Failure> {
    match command {
        Config::Init => print(include_str!("../../config/resaga.toml")),
        Config::Check => {
            session.load()?;
            note("the configuration is valid");
            Ok(())
        }
        Config::Show => {
            let shown = session.load()?.show();
            let setting = |shown: &crate::config::ShownSetting| {
                let value = serde_json::to_value(&shown.value).unwrap_or(Value::Null);
                json!({"key": shown.key, "value": value, "origin": shown.origin.to_string()})
            };
            let answer = json!({"settings": shown.iter().map(setting).collect::<Vec<_>>()});
            session.output.list(&answer, "settings", &[("key", "/key"), ("value", "/value"), ("origin", "/origin")])
        }
    }
}
