//! Tests of the cache through drivers of other languages (`language`) and through a pooler (`pooler`), and of the near-caches and
//! the backends for frameworks of `examples/` (`near`, `backends`). `make/clients.sh` runs them.

mod backends;
mod language;
mod near;
mod pooler;
mod redis;
