//! Keeps a client and its server on one core.
//!
//! With a single client, only the client or the server works at any moment. The scheduler puts them on the same core in some runs
//! and on different cores in others. On different cores, every operation wakes a sleeping core twice. On a virtual machine, that
//! takes longer than the work under test, and as long for an empty operation as for a lookup. On one core, the measurement shows
//! only the work.

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps some server processes and this thread on one core, until the value is dropped. Child processes and threads that this
/// thread starts meanwhile inherit the core, and keep it after the drop.
pub struct OneCore {
    servers: Vec<Pid>,
    /// The cores that this thread was allowed before.
    before: CpuSet,
}

impl OneCore {
    /// Moves the processes `servers`, which must exist, and the calling thread to one core. Of a process with several threads, only
    /// the main thread moves. Must be dropped on the same thread.
    pub fn hold(servers: &[u32]) -> Result<Self> {
        let held = Self {
            servers: servers.iter().filter_map(|server| Pid::from_raw(server.cast_signed())).collect(),
            before: sched_getaffinity(None).context("cannot ask for the allowed cores")?,
        };
        let mut one = CpuSet::new();
        // The last allowed core, because many machines handle interrupts on the first core.
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
        // The servers get the cores that this thread had, because they inherited theirs from this program. Errors are ignored: a
        // server that has ended needs no cores, and this thread was allowed its cores before.
        for server in &self.servers {
            let _ = sched_setaffinity(Some(*server), &self.before);
        }
        let _ = sched_setaffinity(None, &self.before);
    }
}
