//! TCP ports that nothing listens on, for Redis servers of tests. A test must get its ports here, so that two tests do not choose
//! the same one.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// The lowest port that is given away.
const LOWEST: u16 = 10_000;

/// The ports that this process has given away.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a free port of 127.0.0.1, another one at each call. It is below the ports that the kernel gives to outgoing connections,
/// so that it stays free until a server takes it, and while that server is down. Another process may choose the same port by
/// chance.
pub fn free_port() -> u16 {
    let range = outgoing().min(30_000) - LOWEST;
    loop {
        // A new `RandomState` has random keys, so the hash of nothing is a random number.
        let random = RandomState::new().build_hasher().finish();
        let port = LOWEST + (random % u64::from(range)) as u16;
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns the lowest port that the kernel gives to outgoing connections, or Linux's default if that leaves no room for servers.
fn outgoing() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|lowest| lowest.parse().ok());
    lowest.filter(|lowest| *lowest >= LOWEST + 2_000).unwrap_or(32_768)
}
