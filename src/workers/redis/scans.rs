//! The keys of Redis that are still to be compared with the cache.
//!
//! One scan runs at a time. A scan that is asked for while another one runs begins after it, because the running one may have
//! passed its keys. Several waiting scans become one scan, of all keys that begin with the longest prefix that they share.

/// The position of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// How the keys begin.
    pub prefix: String,
    /// The number of the server, and its cursor.
    pub at: (usize, u64),
}

/// The running scan and the one that follows.
#[derive(Debug, Default)]
pub struct Scans {
    /// The position of the running scan.
    running: Option<Position>,
    /// The prefix of the keys of the scan that follows.
    wanted: Option<String>,
}

impl Scans {
    /// Asks for a scan of the keys that begin with the prefix.
    pub fn request(&mut self, prefix: &str) {
        self.wanted = Some(match self.wanted.take() {
            None => prefix.to_owned(),
            Some(other) => common(&other, prefix).to_owned(),
        });
    }

    /// Returns the next step of the running scan, or the first one of the wanted scan.
    pub fn next(&mut self) -> Option<Position> {
        if self.running.is_none() {
            self.running = self.wanted.take().map(|prefix| Position { prefix, at: (0, 0) });
        }
        self.running.clone()
    }

    /// Notes where the running scan goes on; None at its end.
    pub fn advance(&mut self, next: Option<(usize, u64)>) {
        self.running = self.running.take().zip(next).map(|(position, at)| Position { at, ..position });
    }

    /// Returns whether all keys that were asked for have been scanned.
    pub fn are_done(&self) -> bool {
        self.running.is_none() && self.wanted.is_none()
    }

    /// Begins the running scan anew: its position means nothing on another connection.
    pub fn restart(&mut self) {
        if let Some(position) = self.running.take() {
            self.request(&position.prefix);
        }
    }
}

/// Returns the beginning that two texts have in common.
fn common<'t>(one: &'t str, other: &str) -> &'t str {
    let length = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    &one[..one.floor_char_boundary(length)]
}
