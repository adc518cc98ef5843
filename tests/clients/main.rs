//! The cache as it is met from outside: by drivers of other languages, and with a pooler in between.

mod language;
mod pooler;
