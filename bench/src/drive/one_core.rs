//! Keeps a client and its server on one core.
//!
//! With a single client only one of the two works at any time. Left to the scheduler they share a core in one
//! run and not in the next, and whenever they do not, every operation wakes a sleeping core, twice. On a
//! virtual machine that takes longer than everything that is to be measured, and is the same for a lookup and
//! for nothing at all. On one core what remains is the work.

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Until this is dropped, some server processes, this thread, and what they start from now on run on one core.
pub struct OneCore {
    servers: Vec<Pid>,
    before: CpuSet,
}

impl OneCore {
    /// Moves `servers` and the calling thread there.
    pub fn hold(servers: &[u32]) -> Result<Self> {
        let held = Self {
            servers: servers.iter().filter_map(|server| Pid::from_raw(server.cast_signed())).collect(),
            before: sched_getaffinity(None).context("cannot ask for the allowed cores")?,
        };
        let mut one = CpuSet::new();
        // The last: the first is where many machines handle interrupts.
        if let Some(core) = (0..CpuSet::MAX_CPU).rev().find(|core| held.before.is_set(*core)) {
            one.set(core);
            for server in &held.servers {
                sched_setaffinity(Some(*server), &one).context("cannot keep a server on one core")?;
            }
            sched_setaffinity(None, &one).context("cannot keep a client on one core")?;
        }
        Ok(held)
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        // A server that is gone needs no cores, and for ourselves nothing can be refused that was allowed before.
        for server in &self.servers {
            let _ = sched_setaffinity(Some(*server), &self.before);
        }
        let _ = sched_setaffinity(None, &self.before);
    }
}
