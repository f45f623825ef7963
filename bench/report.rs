//! The figures of a measurement, each from one run or several: tables on stdout, JSON and Markdown under `bench/results/`.
//!
//! Of several runs the median counts; least and greatest stand beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use crate::processes;

/// Figures below each other.
pub struct Report {
    command: &'static str,
    events: u64,
    load_before: f64,
    rows: Vec<Row>,
}

struct Row {
    figure: String,
    samples: Samples,
    unit: &'static str,
    /// What it should be at most.
    target: Option<f64>,
}

impl Report {
    pub fn new(command: &'static str, events: u64) -> Self {
        Self { command, events, load_before: processes::load(), rows: Vec::new() }
    }

    /// Once more of a figure, or the first time.
    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        self.put(figure.into(), value, unit, None);
    }

    /// With a target: at most.
    pub fn aim(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: f64) {
        self.put(figure.into(), value, unit, Some(target));
    }

    /// p50 and p99 in milliseconds; the target is p50's.
    pub fn latency(&mut self, figure: &str, mut samples: Vec<Duration>, target: Option<f64>) {
        samples.sort_unstable();
        let at =
            |part: f64| samples.get(((samples.len() as f64 - 1.0) * part) as usize).map_or(f64::NAN, |d| d.as_secs_f64() * 1e3);
        self.put(format!("{figure}, p50"), at(0.5), "ms", target);
        self.add(format!("{figure}, p99"), at(0.99), "ms");
    }

    fn put(&mut self, figure: String, value: f64, unit: &'static str, target: Option<f64>) {
        match self.rows.iter_mut().find(|row| row.figure == figure) {
            Some(row) => row.samples.0.push(value),
            None => self.rows.push(Row { figure, samples: Samples(vec![value]), unit, target }),
        }
    }

    pub fn publish(&self) -> Result<()> {
        let load = format!("load {:.1} before, {:.1} after", self.load_before, processes::load());
        let machine = processes::machine();
        println!("\n{} of {} events; {machine}; {load}\n", self.command, self.events);
        for row in &self.rows {
            println!("  {:<52} {:>28} {:<10} {}", row.figure, row.samples.shown(), row.unit, row.verdict());
        }
        let figures: Vec<_> = self.rows.iter().map(Row::json).collect();
        let json = json!({"command": self.command, "events": self.events, "machine": machine, "load": load, "figures": figures});
        let mut text = format!(
            "# {} of {} events\n\n{machine}; {load}\n\n| figure | value | target |\n|---|---|---|\n",
            self.command, self.events
        );
        for row in &self.rows {
            let target = row.target.map(|target| format!("<= {}", number(target))).unwrap_or_default();
            writeln!(text, "| {} | {} {} | {target} |", row.figure, row.samples.shown(), row.unit)?;
        }
        write_files(self.command, &json, &text)
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({"figure": self.figure, "value": self.samples.median(), "samples": self.samples.0, "unit": self.unit,
            "at_most": self.target})
    }

    fn verdict(&self) -> String {
        match self.target {
            None => String::new(),
            Some(target) if self.samples.median() <= target => format!("within {}", number(target)),
            Some(target) => format!("OVER {}", number(target)),
        }
    }
}

/// JSON and Markdown under `bench/results/`, named by the time.
fn write_files(command: &str, json: &Value, text: &str) -> Result<()> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("{command}-{stamp}.json")), format!("{json:#}\n"))?;
    let file = directory.join(format!("{command}-{stamp}.md"));
    fs::write(&file, text)?;
    println!("\n{}", file.display());
    Ok(())
}

/// Several kinds of run beside each other, the same figures of each.
pub struct Grid {
    command: &'static str,
    events: u64,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Samples>)>,
}

impl Grid {
    pub fn new(command: &'static str, events: u64, columns: &[&'static str]) -> Self {
        Self { command, events, columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Once more of a row, or the first time. Shows it at once: the next run may take minutes.
    pub fn row(&mut self, name: String, figures: &[f64]) {
        let shown: Vec<String> =
            self.columns.iter().zip(figures).map(|(column, figure)| format!("{column} {}", number(*figure))).collect();
        println!("{name}: {}", shown.join(", "));
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, samples)) => samples.iter_mut().zip(figures).for_each(|(samples, figure)| samples.0.push(*figure)),
            None => self.rows.push((name, figures.iter().map(|figure| Samples(vec![*figure])).collect())),
        }
    }

    pub fn publish(&self) -> Result<()> {
        let machine = processes::machine();
        let mut text =
            format!("# {} of {} events\n\n{machine}\n\n| | {} |\n", self.command, self.events, self.columns.join(" | "));
        writeln!(text, "|---|{}", "---|".repeat(self.columns.len()))?;
        let mut rows = Vec::new();
        for (name, figures) in &self.rows {
            let shown: Vec<String> = figures.iter().map(Samples::shown).collect();
            writeln!(text, "| {name} | {} |", shown.join(" | "))?;
            let named: serde_json::Map<_, _> = self
                .columns
                .iter()
                .zip(figures)
                .map(|(column, samples)| ((*column).to_owned(), json!({"value": samples.median(), "samples": samples.0})))
                .collect();
            rows.push(json!({"run": name, "figures": named}));
        }
        println!("\n{text}");
        let json = json!({"command": self.command, "events": self.events, "machine": machine, "runs": rows});
        write_files(self.command, &json, &text)
    }
}

/// One figure of each run.
struct Samples(Vec<f64>);

impl Samples {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    /// The median, and from where to where the runs went.
    fn shown(&self) -> String {
        let middle = number(self.median());
        if self.0.len() < 2 {
            return middle;
        }
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{middle} ({}..{})", number(least), number(greatest))
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
