//! Waiting for a condition, with a deadline. A test must wait for a condition and never for a fixed time, so that a slow machine
//! does not make it fail.

use std::time::{Duration, Instant};

/// Polls `condition` every 5 ms until it holds. Tests must wait for a condition, never for a fixed time. `what` names the
/// condition in the panic.
///
/// # Panics
/// If the condition does not hold within three minutes, which is long enough for a slow machine, and for a worker that pauses
/// after an error.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(180, what, condition);
}

/// Does the same with another limit, for work that takes many seconds even on a fast machine.
///
/// # Panics
/// If the condition does not hold within this number of seconds.
pub fn wait_at_most(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
