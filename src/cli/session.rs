//! What every command needs: the global options beside the environment, the client, the configuration.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::Client;
use super::exit::Failure;
use super::output::Format;
use super::times;
use crate::config::{LoadedConfig, Sources};

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
const REQUEST_TIME_OUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where `resaga serve` answers [env: RESAGA_SERVER] [default: http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// How data is printed [env: RESAGA_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_enum)]
    pub output: Option<Format>,
    /// How long to wait for an answer, or with --wait for the work [default: 30s]
    #[arg(long, global = true, value_parser = times::duration)]
    timeout: Option<Duration>,
    /// The configuration, for work on this machine [env: RESAGA_CONFIG] [default: resaga.toml if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A key of the configuration, such as kafka.brokers=host:9092; may repeat, beats environment and file
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting)]
    setting: Vec<(String, String)>,
}

/// What every command needs.
pub struct Session {
    pub output: Format,
    pub server: String,
    /// As given; commands have defaults of their own.
    pub time_out: Option<Duration>,
    pub environment: Vec<(String, String)>,
    pub config: Option<PathBuf>,
    pub settings: Vec<(String, String)>,
}

impl Session {
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.server, self.time_out.unwrap_or(REQUEST_TIME_OUT))
    }
    pub fn load(&self) -> Result<LoadedConfig, Failure> {
        Ok(crate::config::load(&Sources::gather(self.config.clone(), self.settings.clone()))?)
    }
}

pub fn session(global: &Global, environment: Vec<(String, String)>) -> Result<Session, Failure> {
    let output = match (global.output, variable(&environment, "RESAGA_OUTPUT")) {
        (Some(format), _) => format,
        (None, Some(name)) => {
            Format::from_str(&name, false).map_err(|_| Failure::usage("RESAGA_OUTPUT must be table, json, jsonl, yaml or csv"))?
        }
        (None, None) => Format::Table,
    };
    let server = global.server.clone().or_else(|| variable(&environment, "RESAGA_SERVER"));
    Ok(Session {
        output,
        server: server.unwrap_or_else(|| DEFAULT_SERVER.into()),
        time_out: global.timeout,
        environment,
        config: global.config.clone(),
        settings: global.setting.clone(),
    })
}

/// A variable that is set and not empty.
pub fn variable(environment: &[(String, String)], name: &str) -> Option<String> {
    environment.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.clone())
}

fn setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "must be KEY=VALUE".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_none() {
        let environment = vec![("RESAGA_SERVER".to_owned(), String::new())];
        assert_eq!(variable(&environment, "RESAGA_SERVER"), None);
    }
}
