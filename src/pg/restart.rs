//! Decides whether the cache is saved when the server ends, and whether a saved cache fits when the server starts.
//!
//! *Saving*: the cache is saved only after a clean shutdown. The server's exit code does not tell that: it is 0 after an immediate
//! shutdown, too. So `pg_control` decides: it says on disk that the shutdown checkpoint was written. At that time no session exists
//! any more, and the memory agrees with the database.
//!
//! *Loading*: a saved cache is loaded only if the content of `pg_control` is the same as then, so that the database has not changed
//! since. A backup label or a signal file tells that the server will not simply continue from that checkpoint. Programs and
//! settings must also be the same: see `fingerprint.rs`.
//!
//! Both run in the postmaster while it has no children. A server in single-user mode neither saves nor loads. It changes
//! `pg_control`, so a cache that was saved before it does not fit afterwards.

#![allow(unsafe_code)]

use super::region_file::{self, Identity, State};
use super::{clock, control_file, fingerprint, settings};
use pgrx::pg_sys;
use rustix::fs::{Access, access};
use std::ffi::CStr;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

/// The digest of the programs that the server was started with. None if the system does not tell them.
static PROGRAMS: OnceLock<Option<fingerprint::Digest>> = OnceLock::new();

/// Files that tell the server to recover from a backup or to be a standby.
const SIGNALS: [&CStr; 3] = [c"backup_label", c"standby.signal", c"recovery.signal"];

/// Returns whether this process is a postmaster, and not a server in single-user mode.
pub fn is_postmaster() -> bool {
    // SAFETY: plain globals, constant in a process.
    unsafe { pg_sys::IsPostmasterEnvironment && !pg_sys::IsUnderPostmaster }
}

/// Reads the saved cache into `region`, the shared memory of the cache, and `records`, those of prepared transactions
/// (`prepared.rs`). Both must be full of zeroes. Returns the state of the saved cache and when its clock began, or None if there is
/// no saved cache. If there is one that does not fit, logs the reason and returns None; both then may hold anything. Must be called
/// in the postmaster, when the server creates its shared memory.
pub fn load(region: &mut [u8], records: &mut [u8]) -> Option<(State, u64)> {
    if !is_postmaster() {
        return None;
    }
    region_file::load(identity(), region, records).unwrap_or_else(|why| {
        start_empty(&why);
        None
    })
}

/// Logs that the server starts with the saved cache.
pub fn start_warm(began: Instant) {
    pgrx::log!("pg_cache has loaded the saved cache in {} ms", began.elapsed().as_millis());
}

/// Logs why the server starts with an empty cache although a cache was saved.
pub fn start_empty(why: &dyn std::fmt::Display) {
    pgrx::log!("pg_cache starts with an empty cache: {why}");
}

/// Returns the identity that a saved cache must have. The error says why no saved cache may be used.
fn identity() -> Result<Identity, &'static str> {
    let programs = *PROGRAMS.get_or_init(fingerprint::programs);
    if !settings::saves_on_shutdown() {
        return Err("pg_cache.save_on_shutdown is off");
    }
    if SIGNALS.iter().any(|file| access(*file, Access::EXISTS).is_ok()) {
        return Err("the server starts in recovery");
    }
    let control = control_file::read().ok_or("pg_control cannot be read")?;
    if !control.is_shut_down {
        return Err("the server was not shut down cleanly");
    }
    Ok(Identity {
        control: control.digest,
        programs: programs.ok_or("the libraries of the server are unknown")?,
        settings: fingerprint::settings(),
    })
}

/// Saves the cache, if the server was shut down cleanly; logs the reason if the file cannot be written. Must be called when the
/// postmaster exits with code 0. Raises no error. `region_file::save` says what `is_in_use` must tell.
pub fn save(
    began_ms: u64,
    hash_seed: u64,
    region: &[u8],
    records: &[u8],
    is_in_use: impl Fn(Range<usize>) -> bool,
) {
    let Some(control) = control_file::read().filter(|control| control.is_shut_down) else { return };
    let Some(Some(programs)) = PROGRAMS.get() else { return };
    if !is_postmaster() || !settings::saves_on_shutdown() {
        return;
    }
    let identity =
        Identity { control: control.digest, programs: *programs, settings: fingerprint::settings() };
    let state = State { clock: clock::Reading::of(began_ms), hash_seed, timeline: control.timeline.into() };
    // SAFETY: a plain global.
    let durable = unsafe { pg_sys::enableFsync };
    if let Err(why) = region_file::save(&identity, &state, region, records, durable, is_in_use) {
        pgrx::log!("pg_cache did not save the cache: {why}");
    }
}
