//! Tests of the cache through drivers of other languages (`language`) and through a pooler (`pooler`), and of the near-caches of
//! `examples/` (`near`). `make/clients.sh` runs them.

mod language;
mod near;
mod pooler;
mod redis;
