//! Shows the progress of the benchmark on standard error, because a program that prints nothing for minutes looks as if it hangs.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// A progress display on standard error. On a terminal, each call of `say` rewrites one line. Elsewhere, a call prints a line if
/// the last one is at least ten seconds old, so the caller must call `say` often. Texts are cut at 90 characters.
pub struct Progress {
    /// When the task began.
    started: Instant,
    /// When a line was last printed.
    last_output: Instant,
    /// Whether standard error is a terminal, so that one line is rewritten.
    in_place: bool,
}

impl Progress {
    /// Begins a task: prints its name and the estimate of its duration, rounded up to ten seconds.
    pub fn begin(name: &str, estimate: Duration) -> Self {
        eprintln!("==> measuring {name}, about {} s", estimate.as_secs().div_ceil(10) * 10);
        let now = Instant::now();
        Self { started: now, last_output: now, in_place: stderr().is_terminal() }
    }

    /// Shows the current step.
    pub fn say(&mut self, step: &str) {
        let seconds = self.started.elapsed().as_secs();
        if self.in_place {
            eprint!("\r\x1b[K    {seconds:4} s  {step:.90}");
            // The error of the flush alone is ignored; `eprint!` itself panics if the terminal cannot be written to.
            let _ = stderr().flush();
        } else if self.last_output.elapsed() >= Duration::from_secs(10) {
            eprintln!("    {seconds:4} s  {step:.90}");
            self.last_output = Instant::now();
        }
    }

    /// Ends the task and prints its duration.
    pub fn end(self) {
        let clear = if self.in_place { "\r\x1b[K" } else { "" };
        eprintln!("{clear}    done in {} s", self.started.elapsed().as_secs());
    }
}
