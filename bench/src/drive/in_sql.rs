//! Runs a contender of the plan (`plan.rs`) inside SQL (`Work::Expression`): one SELECT over all keys, repeatedly in one session.

use super::load::Run;
use crate::data::KEYS;
use anyhow::{Result, ensure};
use postgres::Client;
use std::time::{Duration, Instant};

/// Evaluates `expression` for every key, again and again until `span` is over, but at least once. The expression is over the column
/// `key` of the table `probe` (`setup.sql`), which `session` must see. Returns an error if the expression is null for a key,
/// because only hits are measured.
pub fn run(session: &mut Client, expression: &str, span: Duration) -> Result<Run> {
    let select = session.prepare(&format!("SELECT count({expression}) FROM probe"))?;
    let started = Instant::now();
    let mut operations = 0;
    while started.elapsed() < span || operations == 0 {
        let found: i64 = session.query_one(&select, &[])?.get(0);
        ensure!(found.cast_unsigned() == KEYS, "{expression} found {found} of {KEYS} keys");
        operations += KEYS;
    }
    Ok(Run { operations, per_second: operations as f64 / started.elapsed().as_secs_f64() })
}
