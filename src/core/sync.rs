//! The atomics of the core. Only this file knows which ones they are: those of the standard library, those of a model checker that
//! tries every order of steps (`--cfg loom`), or ones that count writes (`--cfg counting`). All other files of the core must take
//! their atomics from here.

#[cfg(counting)]
pub(crate) use crate::counting::AtomicU64;
#[cfg(not(any(loom, counting)))]
pub(crate) use std::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Tells the processor, or the model checker, that this thread waits for another thread in a loop.
#[inline]
pub(crate) fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Lets another thread run on this processor. A loop that has waited long calls this, because the thread that it waits for may have
/// lost its processor.
pub(crate) fn yield_now() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}
