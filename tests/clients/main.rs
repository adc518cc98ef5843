//! Tests of the cache through drivers of other languages, and through a pooler. `make/clients.sh` runs them.

mod language;
mod near;
mod pooler;
