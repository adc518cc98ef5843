//! Runs a *contender* of the plan (`plan.rs`), one of the alternatives that a measurement compares, for a while, and reports its
//! speed.
//!
//! [`in_sql`] runs an expression in one SELECT, [`wire`] sends prepared statements to PostgreSQL, and `redis_benchmark` sends
//! commands to Redis. `load` has the common types. [`one_core`] moves a client and its server to one core.

pub mod in_sql;
mod load;
pub mod one_core;
mod redis_benchmark;
pub mod wire;

pub use load::{Load, Run};

use crate::plan::{Contender, Measurement, Work};
use crate::test_servers::TestServers;
use anyhow::{Context, Result};
use one_core::OneCore;
use std::cell::Cell;
use std::time::Duration;
use wire::{Task, Until};

/// Runs one contender of one measurement.
pub struct Driver<'a> {
    test_servers: &'a TestServers,
    load: Load,
    contender: &'a Contender,
    /// The operations per second of the last run. redis-benchmark takes a number of operations, not a time, so the driver computes
    /// the number from this rate.
    per_second: Cell<f64>,
    /// How many runs of a statement this driver has done. This number is the seed of the random keys. So each run has other keys,
    /// and the n-th runs of all statements draw the same keys, counted from the first key of their range. redis-benchmark draws its
    /// own keys.
    runs: Cell<u64>,
}

impl<'a> Driver<'a> {
    /// Creates the driver of `contender` in `measurement`.
    pub fn new(test_servers: &'a TestServers, measurement: &Measurement, contender: &'a Contender) -> Self {
        let Measurement { clients, pipeline, keys, .. } = *measurement;
        let load = Load { clients, pipeline, keys };
        // The first rate is a guess for the first run of redis-benchmark. Every later run uses a measured rate.
        Self { test_servers, load, contender, per_second: Cell::new(20_000.0), runs: Cell::new(0) }
    }

    /// Runs the contender for about `span`. With one client, client and server share one core meanwhile (see [`one_core`]). The
    /// caller must not hold a borrow of the test servers' sessions.
    pub fn run(&self, span: Duration) -> Result<Run> {
        let processes = self.server_processes()?;
        let _alone = if self.load.clients == 1 { Some(OneCore::hold(&processes)?) } else { None };
        let run = match self.contender.work {
            Work::Expression(expression) => in_sql::run(&mut self.test_servers.session(), expression, span),
            Work::Statement(statement, given) => {
                let task =
                    Task { statement, given, load: self.load, seed: self.runs.replace(self.runs.get() + 1) };
                self.test_servers.pool().run(&self.test_servers.cluster, task, Until::Over(span))
            }
            Work::Redis(command) => {
                let operations = (self.per_second.get() * span.as_secs_f64()) as u64;
                redis_benchmark::run(&self.test_servers.redis, self.load, command, operations)
            }
        };
        let run = run.with_context(|| format!("{}, {} clients", self.contender.name, self.load.clients))?;
        self.per_second.set(run.per_second);
        Ok(run)
    }

    /// Returns whether each run opens its own connections. The sessions with PostgreSQL stay connected from run to run.
    pub fn connects(&self) -> bool {
        matches!(self.contender.work, Work::Redis(_))
    }

    /// Returns the IDs of the processes that do the server's share of the work in a run. Connects the sessions that are missing.
    pub fn server_processes(&self) -> Result<Vec<u32>> {
        match self.contender.work {
            Work::Expression(_) => Ok(vec![self.test_servers.backend()?]),
            Work::Statement(..) => {
                self.test_servers.pool().processes(&self.test_servers.cluster, self.load.clients)
            }
            Work::Redis(_) => Ok(vec![self.test_servers.redis_process()?]),
        }
    }
}
