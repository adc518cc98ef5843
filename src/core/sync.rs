//! The atomics of the core. Only this file knows whether they are the standard ones, a model checker's, or ones that count writes.

#[cfg(counting)]
pub(crate) use crate::counting::AtomicU64;
#[cfg(not(any(loom, counting)))]
pub(crate) use std::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Tells the processor, or the model checker, that this thread waits for another thread.
#[inline]
pub(crate) fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Lets another thread run: the one that this thread waits for may have lost its processor.
pub(crate) fn yield_now() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}
