//! TCP ports that nothing listens on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;

/// Returns a free port of 127.0.0.1. It is below the ports that the kernel gives to outgoing connections by default (32768 and
/// above), so that it stays free until a server takes it, and while that server is down. Another test may choose the same port by
/// chance, once in 20 000 times.
pub fn free_port() -> u16 {
    loop {
        // A new `RandomState` has random keys, so the hash of nothing is a random number.
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + (random % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
