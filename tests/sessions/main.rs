//! Tests that need more than one session, or a server of their own: real clusters, real commits.

mod docs;
mod harness;
mod memory;
mod preload;
mod spaces;
mod transaction;
