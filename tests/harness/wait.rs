use std::time::{Duration, Instant};

/// Polls until `condition` holds. Tests wait for what they need, never for a time.
///
/// # Panics
/// After 60 s, naming what did not happen: long enough for a slow machine, short enough to be told.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 60 s in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
