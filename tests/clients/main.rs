//! Tests of the cache through drivers of other languages (`language`) and through a pooler (`pooler`), of the near-caches and the
//! backends for frameworks of `examples/` (`near`, `backends`), of the text for Prometheus (`metrics`) and of the files of
//! `monitoring/` (`monitoring`). `make/clients.sh` runs
//! them.

mod backends;
mod language;
mod metrics;
mod monitoring;
mod near;
mod pooler;
mod redis;
