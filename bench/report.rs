//! The figures of one run: a table on stdout, JSON and Markdown under `bench/results/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use crate::processes;

pub struct Report {
    command: &'static str,
    events: u64,
    load_before: f64,
    rows: Vec<Row>,
}

struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    /// What it should be at most.
    target: Option<f64>,
}

impl Report {
    pub fn new(command: &'static str, events: u64) -> Self {
        Self { command, events, load_before: processes::load(), rows: Vec::new() }
    }

    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { figure: figure.into(), value, unit, target: None });
    }

    /// With a target: at most.
    pub fn aim(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: f64) {
        self.rows.push(Row { figure: figure.into(), value, unit, target: Some(target) });
    }

    /// p50 and p99 in milliseconds; the target is p50's.
    pub fn latency(&mut self, figure: &str, mut samples: Vec<Duration>, target: Option<f64>) {
        samples.sort_unstable();
        let at =
            |part: f64| samples.get(((samples.len() as f64 - 1.0) * part) as usize).map_or(f64::NAN, |d| d.as_secs_f64() * 1e3);
        self.rows.push(Row { figure: format!("{figure}, p50"), value: at(0.5), unit: "ms", target });
        self.add(format!("{figure}, p99"), at(0.99), "ms");
    }

    pub fn publish(&self) -> Result<()> {
        let load = format!("load {:.1} before, {:.1} after", self.load_before, processes::load());
        let machine = processes::machine();
        println!("\n{} of {} events; {machine}; {load}\n", self.command, self.events);
        for row in &self.rows {
            println!("  {:<52} {:>12} {:<10} {}", row.figure, number(row.value), row.unit, row.verdict());
        }
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| json!({"figure": row.figure, "value": row.value, "unit": row.unit, "at_most": row.target}))
            .collect();
        let json = json!({"command": self.command, "events": self.events, "machine": machine, "load": load, "figures": rows});
        let mut text = format!(
            "# {} of {} events\n\n{machine}; {load}\n\n| figure | value | target |\n|---|---|---|\n",
            self.command, self.events
        );
        for row in &self.rows {
            let target = row.target.map(|target| format!("<= {}", number(target))).unwrap_or_default();
            writeln!(text, "| {} | {} {} | {target} |", row.figure, number(row.value), row.unit)?;
        }
        write_files(self.command, &json, &text)
    }
}

/// JSON and Markdown under `bench/results/`, named by the time.
fn write_files(command: &str, json: &serde_json::Value, text: &str) -> Result<()> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("{command}-{stamp}.json")), format!("{json:#}\n"))?;
    let file = directory.join(format!("{command}-{stamp}.md"));
    fs::write(&file, text)?;
    println!("\n{}", file.display());
    Ok(())
}

/// Several runs beside each other, the same figures of each.
pub struct Grid {
    command: &'static str,
    events: u64,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<f64>)>,
}

impl Grid {
    pub fn new(command: &'static str, events: u64, columns: &[&'static str]) -> Self {
        Self { command, events, columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Shows the row at once: the next run may take minutes.
    pub fn row(&mut self, name: String, figures: &[f64]) {
        let shown: Vec<String> =
            self.columns.iter().zip(figures).map(|(column, figure)| format!("{column} {}", number(*figure))).collect();
        println!("{name}: {}", shown.join(", "));
        self.rows.push((name, figures.to_vec()));
    }

    pub fn publish(&self) -> Result<()> {
        let machine = processes::machine();
        let mut text =
            format!("# {} of {} events\n\n{machine}\n\n| | {} |\n", self.command, self.events, self.columns.join(" | "));
        writeln!(text, "|---|{}", "---|".repeat(self.columns.len()))?;
        let mut rows = Vec::new();
        for (name, figures) in &self.rows {
            let shown: Vec<String> = figures.iter().map(|figure| number(*figure)).collect();
            writeln!(text, "| {name} | {} |", shown.join(" | "))?;
            let named: serde_json::Map<_, _> =
                self.columns.iter().map(|c| (*c).to_owned()).zip(figures.iter().map(|f| json!(f))).collect();
            rows.push(json!({"run": name, "figures": named}));
        }
        println!("\n{text}");
        let json = json!({"command": self.command, "events": self.events, "machine": machine, "runs": rows});
        write_files(self.command, &json, &text)
    }
}

impl Row {
    fn verdict(&self) -> String {
        match self.target {
            None => String::new(),
            Some(target) if self.value <= target => format!("within {}", number(target)),
            Some(target) => format!("OVER {}", number(target)),
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
