//! Finds out whether a session that waits for a value takes part in a deadlock. The server's deadlock detector cannot see such a
//! deadlock, because it only knows waits for locks.
//!
//! A session that waits for a value notes the process that computes the value, its *leader*, in a word of shared memory. The
//! session is part of a deadlock if its leader waits, directly or through other processes, for the session. Each process of this
//! chain waits for a lock or for a value.

#![allow(unsafe_code)]

use super::{session, shared};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// The note that this session waits for a leader, until dropped. If the session is terminated, the note stays. The waiting process
/// that it names is then gone, so it does no harm.
#[derive(Debug)]
pub struct Note(&'static AtomicU64);

impl Note {
    /// Notes that this session waits for a process. None if there is no cache.
    pub fn of(leader: u32) -> Option<Self> {
        let word = shared::waits().get(shared::slot() as usize)?;
        word.store(u64::from(session::pid()) << 32 | u64::from(leader), Ordering::Relaxed);
        Some(Self(word))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Returns the process for whose value a process waits.
fn leader_of(pid: u32) -> Option<u32> {
    let notes = shared::waits().iter().map(|word| word.load(Ordering::Relaxed));
    notes.into_iter().find(|note| note >> 32 == u64::from(pid)).map(|note| note as u32)
}

/// Returns the processes that keep a process from the lock that it waits for, including the processes ahead of it in the queue of
/// the lock. The call takes all locks of the server's lock table for a moment, so it must be rare. May raise errors.
fn blockers_of(pid: u32) -> Vec<u32> {
    let Ok(pid) = i32::try_from(pid) else { return Vec::new() };
    // SAFETY: the function of the server has one argument of this type, and returns an array of integers.
    let found =
        unsafe { pgrx::direct_function_call::<Vec<i32>>(pg_sys::pg_blocking_pids, &[pid.into_datum()]) };
    // A prepared transaction is shown as 0, and waits for nothing.
    found
        .unwrap_or_default()
        .into_iter()
        .filter_map(|pid| u32::try_from(pid).ok().filter(|pid| *pid > 0))
        .collect()
}

/// Returns whether a process waits, directly or through other processes, for this session. May raise errors.
pub fn waits_for_me(process: u32) -> bool {
    let me = session::pid();
    let (mut known, mut left) = (BTreeSet::from([process]), vec![process]);
    while let Some(next) = left.pop() {
        for other in blockers_of(next).into_iter().chain(leader_of(next)) {
            if other == me {
                return true;
            }
            if known.insert(other) {
                left.push(other);
            }
        }
    }
    false
}

/// Returns the setting `deadlock_timeout` in milliseconds.
pub fn timeout_ms() -> u64 {
    // SAFETY: a plain global that holds the server's setting.
    u64::try_from(unsafe { pg_sys::DeadlockTimeout }).unwrap_or(1).max(1)
}
