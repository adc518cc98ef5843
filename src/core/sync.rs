//! The one place that knows whether the atomics are the machine's, a model checker's, or such as count.

#[cfg(counting)]
pub(crate) use crate::counting::AtomicU64;
#[cfg(not(any(loom, counting)))]
pub(crate) use std::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Tells the processor, or the model checker, that we wait for another thread.
#[inline]
pub(crate) fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
