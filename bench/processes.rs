//! What the kernel says of a process: CPU time and memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

#[derive(Debug, Clone, Copy)]
pub struct Pid(pub u32);

impl Pid {
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// From a pid file of `tests/servers`.
    pub fn of_file(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(Self(text.split_whitespace().next().context("an empty pid file")?.parse()?))
    }

    /// User and system time of all threads; the kernel counts in ticks of 10 ms.
    pub fn cpu(self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).context("read CPU time")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
        // utime and stime are the fields 14 and 15; the state, field 3, comes first here.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// Greatest resident memory so far, MiB.
    pub fn peak_mib(self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).context("read memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

/// Load of the machine over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Processors, memory and kernel, in one line.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores ({model}), {:.0} GiB, Linux {}", kib / 1024.0 / 1024.0, kernel.trim())
}
