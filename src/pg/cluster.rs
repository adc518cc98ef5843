//! The identity of this server among all servers.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::ffi::CStr;
use twox_hash::XxHash3_64;

/// Returns a name that no other running server has: made from the system identifier, which copies of a data directory share, and from
/// the host and the path of the data directory. It has letters, digits and `-` only, and stays the same across restarts.
pub fn name() -> String {
    // SAFETY: both are constant while the server runs. The path ends with a zero.
    let (identifier, path) = unsafe { (pg_sys::GetSystemIdentifier(), CStr::from_ptr(pg_sys::DataDir)) };
    let host = rustix::system::uname();
    let place = XxHash3_64::oneshot_with_seed(identifier, host.nodename().to_bytes());
    format!("pg_cache-{identifier:x}-{:x}", XxHash3_64::oneshot_with_seed(place, path.to_bytes()))
}
