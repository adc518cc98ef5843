//! The processes of one *life* of the region, the memory that all of them share: starts them, waits for them, and kills them. A
//! life begins when the region is formatted and ends when all processes are gone. The *heir* is the process that then attaches to
//! the memory they have left (`main.rs`).

use crate::ground::PATIENCE;
use crate::values::Random;
use crate::worker::PARTS;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The environment variables of a started process: its seat (its place in `PARTS`, or `HEIR`), the seed of its random numbers, and
/// the directory of the file.
pub const SEAT: &str = "PG_CACHE_TEST_SEAT";
pub const SEED: &str = "PG_CACHE_TEST_PROCESS_SEED";
pub const DIRECTORY: &str = "PG_CACHE_TEST_DIRECTORY";

/// Started processes, in the order of their seats. They are killed at the latest when this value is dropped.
pub struct Crew(pub Vec<Child>);

impl Crew {
    /// Starts a process for each of these seats, on the file in this directory.
    pub fn start(directory: &Path, seats: std::ops::Range<usize>, random: &mut Random) -> Self {
        let mut crew = Self(Vec::new());
        for seat in seats {
            // The started program runs only `a_process` in `main.rs`, which the test harness ignores otherwise.
            let child = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "a_process", "--ignored", "--nocapture", "--test-threads=1"])
                .env(SEAT, seat.to_string())
                .env(SEED, random.below(u64::MAX).to_string())
                .env(DIRECTORY, directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("this program can be started again");
            crew.0.push(child);
        }
        crew
    }

    /// Fails if a process has ended. Skips the first `from` processes of the crew.
    pub fn all_live(&mut self, from: usize) {
        for (seat, child) in self.0.iter_mut().enumerate().skip(from) {
            let ended = child.try_wait().expect("it is ours");
            assert_eq!(ended, None, "process {seat}, the {:?}, has ended", PARTS.get(seat));
        }
    }

    /// Waits for the end of a process, and fails after [`PATIENCE`]. `seat` is its place in the crew, which is 0 for the heir.
    pub fn end_of(&mut self, seat: usize) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0[seat].try_wait().expect("it is ours") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "process {seat} of {} does not end", self.0.len());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
