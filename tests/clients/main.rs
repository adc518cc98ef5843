//! Tests of the cache from outside: through drivers of other languages, and through a pooler.

mod language;
mod pooler;
