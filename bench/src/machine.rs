//! Describes the machine of the measurement for the report: processor, memory, kernel, versions. Without this description, a reader
//! cannot judge the numbers.

use crate::test_servers::TestServers;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::time::Duration;

/// The machine, and the versions of the programs that ran on it. It must not contain the machine's name or anything that identifies
/// it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// When the results were complete.
    pub finished: String,
    /// The model name of the processor.
    pub processor: String,
    /// The number of cores that this process may use, which servers and clients shared.
    pub cores: usize,
    /// Whether the machine is a virtual machine. Only x86 processors tell; on others this is false.
    pub virtual_machine: bool,
    /// Memory in units of 2^30 bytes, rounded. 0 if it is not known.
    pub memory_gb: u64,
    /// The Linux version, without a distributor's suffix. Empty if it is not known.
    pub kernel: String,
    /// The versions of PostgreSQL and Redis. `None` if no measurement of the plan was made.
    pub servers: Option<Servers>,
    /// The version of pg_cache.
    pub pg_cache: String,
    /// How busy the cores were before the benchmark ran anything, from 0 to 1.
    pub busy_before: f64,
    /// The share of the cores' time that the hypervisor gave to other machines during the run, from 0 to 1.
    pub stolen: f64,
}

/// The versions of the servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Servers {
    /// The version of PostgreSQL.
    pub postgresql: String,
    /// The version of Redis.
    pub redis: String,
}

impl Servers {
    /// Asks the servers for their versions.
    pub fn ask(test_servers: &TestServers) -> Result<Self> {
        let version = "SELECT split_part(current_setting('server_version'), ' ', 1)";
        Ok(Self {
            postgresql: test_servers.session().query_one(version, &[])?.get(0),
            redis: test_servers.redis.info("redis_version").context("Redis does not tell its version")?,
        })
    }
}

impl Machine {
    /// Reads the facts from the system. Must be called at the end of the run. The arguments are the facts that the run has
    /// measured.
    pub fn look(servers: Option<Servers>, busy_before: f64, stolen: f64) -> Result<Self> {
        let processor = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let numeric = |letter: char| letter.is_ascii_digit() || letter == '.';
        Ok(Self {
            finished: utc()?,
            // Not every architecture reports a model name.
            processor: field(&processor, "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: cores(),
            virtual_machine: field(&processor, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_gb: memory_gb().unwrap_or(0),
            kernel: kernel.split(|letter| !numeric(letter)).next().unwrap_or_default().to_owned(),
            servers,
            pg_cache: env!("CARGO_PKG_VERSION").into(),
            busy_before,
            stolen,
        })
    }
}

/// Returns the current time in UTC, to the minute.
fn utc() -> Result<String> {
    let output =
        std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output().context("no date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the number of cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns the memory of the machine in units of 2^30 bytes, or `None` if the kernel does not tell.
fn memory_gb() -> Option<u64> {
    let kilobytes: u64 =
        field(&read_to_string("/proc/meminfo").ok()?, "MemTotal")?.split(' ').next()?.parse().ok()?;
    // MemTotal does not include the memory that the kernel keeps for itself: 23.5 means 24.
    Some((kilobytes as f64 / 1024.0 / 1024.0).round() as u64)
}

/// Returns the first value of a name in one of the kernel's lists of lines `name : value`, or `None` if the name is not in it.
fn field(list: &str, name: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let (label, value) = line.split_once(':')?;
        (label.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Returns how busy the cores are, from 0 to 1, measured for one second in which the benchmark does nothing.
pub fn busy_share() -> f64 {
    let before = Ticks::now();
    std::thread::sleep(Duration::from_secs(1));
    let (all, idle, _) = Ticks::now().since(before);
    1.0 - idle / all
}

/// Measures the time that the hypervisor takes, from the moment of its creation on.
pub struct StolenTime(Ticks);

impl StolenTime {
    /// Begins the measurement.
    pub fn since_now() -> Self {
        Self(Ticks::now())
    }

    /// Returns the share of the cores' time that the hypervisor took since then, from 0 to 1.
    pub fn share(&self) -> f64 {
        let (all, _, stolen) = Ticks::now().since(self.0);
        stolen / all
    }
}

/// Clock ticks of all cores since the machine's start. All are 0 if the kernel does not tell.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    /// All ticks.
    all: u64,
    /// The ticks in which a core did nothing.
    idle: u64,
    /// The ticks that the host of a virtual machine gave to others.
    stolen: u64,
}

impl Ticks {
    /// Returns the ticks up to now, from `/proc/stat`.
    fn now() -> Self {
        Self::parse(&read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Parses the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, and the guest times. These are
    /// left out, because user and nice include them. `idle` is idle and iowait together.
    fn parse(stat: &str) -> Self {
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or(0);
        Self { all: ticks.iter().sum(), idle: at(3) + at(4), stolen: at(7) }
    }

    /// Returns all, idle and stolen ticks between `then` and now. All ticks are at least 1, so that a caller can divide by them.
    fn since(self, then: Self) -> (f64, f64, f64) {
        let difference = |now: u64, then: u64| now.saturating_sub(then) as f64;
        (
            difference(self.all, then.all).max(1.0),
            difference(self.idle, then.idle),
            difference(self.stolen, then.stolen),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if time in which the cores were idle, or which other machines got, counts as work.
    #[test]
    fn ticks_are_told_apart() {
        let then = Ticks::parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 2 3\n");
        let now = Ticks::parse("cpu  30 0 20 120 20 0 0 10 5 0\n");
        assert_eq!(now.since(then), (100.0, 60.0, 10.0));
    }

    /// Fails if the name of the processor is not found, or if a missing field is not reported as missing.
    #[test]
    fn the_first_processor_names_the_model_of_all() {
        let list = "processor\t: 0\nmodel name\t: A fast one\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\n";
        assert_eq!(field(list, "model name").as_deref(), Some("A fast one"));
        assert_eq!(field(list, "bogus"), None);
    }
}
