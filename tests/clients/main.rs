//! Tests from outside of the server. `make/clients.sh` runs them.
//!
//! - `language`: the cache through drivers of other languages; `pooler`: through pgbouncer.
//! - `near`, `backends`: the near-caches and the backends for frameworks of `examples/`.
//! - `metrics`: the text for Prometheus; `monitoring`: the files of `monitoring/`.
//! - `redis`: clients of Redis that read the copies.

mod backends;
mod language;
mod metrics;
mod monitoring;
mod near;
mod pooler;
mod redis;
