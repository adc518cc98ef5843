//! The keys of Redis that are still to be compared with the cache.
//!
//! One scan runs at a time. A scan that is requested while another scan runs must begin after it, because the running scan may
//! already have passed some of its keys. Several waiting scans become one scan, of all keys that begin with the longest prefix that
//! they share.

/// The next step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The text with which the keys begin.
    pub prefix: String,
    /// The number of the Redis server, and the cursor of the scan on that server.
    pub at: (usize, u64),
}

/// The running scan and the one that follows.
#[derive(Debug, Default)]
pub struct Scans {
    /// The position of the running scan.
    running: Option<Position>,
    /// The prefix of the keys of the scan that follows the running one.
    wanted: Option<String>,
}

impl Scans {
    /// Requests a scan of the keys that begin with the prefix.
    pub fn request(&mut self, prefix: &str) {
        self.wanted = Some(match self.wanted.take() {
            None => prefix.to_owned(),
            Some(other) => common(&other, prefix).to_owned(),
        });
    }

    /// Returns the next step of the running scan. If no scan runs, begins the requested one.
    pub fn next(&mut self) -> Option<Position> {
        if self.running.is_none() {
            self.running = self.wanted.take().map(|prefix| Position { prefix, at: (0, 0) });
        }
        self.running.clone()
    }

    /// Notes the next step of the running scan; None if the scan has ended.
    pub fn advance(&mut self, next: Option<(usize, u64)>) {
        self.running = self.running.take().zip(next).map(|(position, at)| Position { at, ..position });
    }

    /// Returns whether every requested scan has ended.
    pub fn are_done(&self) -> bool {
        self.running.is_none() && self.wanted.is_none()
    }

    /// Begins the running scan anew, because its cursor means nothing on another connection.
    pub fn restart(&mut self) {
        if let Some(position) = self.running.take() {
            self.request(&position.prefix);
        }
    }
}

/// Returns the longest common beginning of two texts.
fn common<'t>(one: &'t str, other: &str) -> &'t str {
    let length = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    &one[..one.floor_char_boundary(length)]
}
