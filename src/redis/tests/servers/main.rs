//! Tests of the client of Redis (`src/redis/lib.rs`) with real servers: one server, a cluster, sentinels, TLS, and servers that are
//! full, paused or broken.

mod broken;
mod cluster;
mod encrypted;
mod harness;
mod proxy;
mod sentinel;
mod single;
