//! Tests of leases and claims: of many sessions, one computes and the others wait. Some sessions are cancelled,
//! terminated or killed meanwhile. No lease and no claim may outlive its end, and nothing older than its lease may be stored.
//! A lease is the task to compute the value of a key (`cache_acquire`). A claim is the right of a transaction to set a key that
//! has no value (`cache_set` with mode `absent`).
//!
//! - `calls`: the calls of the functions under test.
//! - `crowd`: many sessions at once.
//! - `waiting`: sessions that wait for another one.
//! - `lifetime`: leases outlive sessions whose client disconnects, but not a crash.
//! - `snapshots`: values computed from a snapshot that is older than the lease.
//! - `places`: the numbers of leases and claims are limited.

mod calls;
mod crowd;
mod lifetime;
mod places;
mod snapshots;
mod waiting;
