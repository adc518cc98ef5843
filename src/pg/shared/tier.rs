//! The *tier*, the cache in shared memory, as this backend sees it: attached when it is first used. All code reaches the cache
//! through [`tier`]. The *region* is its memory.

#![allow(unsafe_code)]

use super::control::{CONTROL, began_ms, with_control};
use super::host::{Backend, HotTier};
use super::layout::{region, sizes};
use super::process::{RecoveryInProgress, slot};
use crate::pg::local::check_thread;
use pg_cache_core::Tier;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicPtr, Ordering};

/// This backend's tier. Never set in the postmaster, so that no backend inherits it.
static TIER: AtomicPtr<Tier<'static, Backend>> = AtomicPtr::new(std::ptr::null_mut());

/// Returns this backend's tier, and attaches it first if necessary, which allocates and may raise a warning. None if the cache is
/// switched off, or if the server is in recovery: then cached values could not be proved to be current.
#[inline]
pub fn tier() -> Option<&'static HotTier> {
    known_tier().or_else(attach)
}

/// Returns this backend's tier if it is attached already. Calls no function of the server, so it may be called where no error may
/// be raised, for instance after a commit.
#[inline]
pub fn known_tier() -> Option<&'static HotTier> {
    // SAFETY: the pointer is null, or `attach` has set it to a complete tier that is never freed.
    unsafe { TIER.load(Ordering::Acquire).as_ref() }
}

/// Returns whether there is a tier that this backend has not attached yet. Cannot fail, and raises no error.
#[inline]
pub fn is_tier_to_be_found() -> bool {
    known_tier().is_none() && is_there_one()
}

/// Returns whether this process can attach a tier: there is a cache, the server is not in recovery, and the process has an entry in
/// the server's process array.
#[cold]
fn is_there_one() -> bool {
    check_thread();
    // SAFETY: `RecoveryInProgress` raises no error, and `MyProc` is a plain global.
    !CONTROL.load(Ordering::Relaxed).is_null()
        && unsafe { !RecoveryInProgress() && !pg_sys::MyProc.is_null() }
}

/// Attaches this backend's tier. If the region is damaged or belongs to another timeline, warns and switches the cache off in this
/// process.
#[cold]
fn attach() -> Option<&'static HotTier> {
    if !is_there_one() {
        return None;
    }
    let control = CONTROL.load(Ordering::Relaxed);
    if has_left_timeline() {
        pgrx::warning!("pg_cache is switched off: the saved cache is that of another timeline");
        CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
        return None;
    }
    let began_ms = began_ms();
    let sizes = sizes();
    let tier = Tier::<Backend>::shards_of(sizes).and_then(|shards| {
        // SAFETY: the locks that `creation.rs` has asked for. The settings cannot change while the server runs.
        let host = unsafe { Backend::new(shards, began_ms) };
        Tier::attach(region(control, sizes)?, host, slot())
    });
    match tier {
        Ok(tier) => {
            TIER.store(Box::into_raw(Box::new(tier)), Ordering::Release);
            self::tier()
        }
        Err(error) => {
            pgrx::warning!("pg_cache is switched off: {error}");
            CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
            None
        }
    }
}

/// Returns whether the server has left the timeline that the saved cache belongs to. It cannot, unless a signal file appears just
/// when the server starts. The server must not be in recovery.
fn has_left_timeline() -> bool {
    let timeline = with_control(|control| control.timeline.load(Ordering::Relaxed));
    // SAFETY: the server has left recovery, so its timeline does not change any more.
    timeline != 0 && timeline != u64::from(unsafe { pg_sys::GetWALInsertionTimeLine() })
}
