//! Shows that it moves: minutes without a word look like a hang.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// In place on a terminal, now and then elsewhere.
pub struct Progress {
    started: Instant,
    said: Instant,
    in_place: bool,
}

impl Progress {
    /// Begins something with an estimate of how long it will take.
    pub fn begin(what: &str, estimate: Duration) -> Self {
        eprintln!("==> measuring {what}, about {} s", estimate.as_secs().div_ceil(10) * 10);
        let now = Instant::now();
        Self { started: now, said: now, in_place: stderr().is_terminal() }
    }

    /// What is being done now.
    pub fn say(&mut self, what: &str) {
        let seconds = self.started.elapsed().as_secs();
        if self.in_place {
            eprint!("\r\x1b[K    {seconds:4} s  {what:.90}");
            // A terminal that cannot be written to has no reader to disappoint.
            let _ = stderr().flush();
        } else if self.said.elapsed() >= Duration::from_secs(10) {
            eprintln!("    {seconds:4} s  {what:.90}");
            self.said = Instant::now();
        }
    }

    /// Ends with the time it took.
    pub fn end(self) {
        let clear = if self.in_place { "\r\x1b[K" } else { "" };
        eprintln!("{clear}    done in {} s", self.started.elapsed().as_secs());
    }
}
