//! The identity of this server among all servers. The worker of Redis gives its connections this name, so that a later worker of
//! the same server can end them (`workers/redis/copier.rs`).

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::CStr;
use twox_hash::XxHash3_64;

/// Returns a name for this server. It is made from the system identifier, which copies of a data directory share, from the name of
/// the host, and from the path of the data directory. Two servers must not have all three in common. The name has letters, digits,
/// `-` and `_` only, and stays the same across restarts.
pub fn name() -> String {
    // SAFETY: both are constant while the server runs. The path ends with a zero.
    let (identifier, path) = unsafe { (pg_sys::GetSystemIdentifier(), CStr::from_ptr(pg_sys::DataDir)) };
    let host = rustix::system::uname();
    let place = XxHash3_64::oneshot_with_seed(identifier, host.nodename().to_bytes());
    format!("pg_cache-{identifier:x}-{:x}", XxHash3_64::oneshot_with_seed(place, path.to_bytes()))
}
