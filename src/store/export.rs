//! Copies of values for Redis: which values can be copied, and their form in Redis, which is JSON text. The worker of Redis looks
//! at each changed key through this file (`workers/redis/batches.rs`).
//!
//! | value | in Redis |
//! |---|---|
//! | jsonb | its text |
//! | text | a JSON string |
//! | bytea | a JSON string with `\x` and hexadecimal digits |
//! | counter | a number |
//!
//! Results of queries have no form for Redis (`kind.rs` says why).

use super::keyspace::hash;
use super::kind::{BYTEA, JSONB, TEXT};
use super::note;
use crate::pg::error::OrRaise;
use crate::pg::jsonb;
use crate::pg::memory::{self, Scratch};
use crate::pg::shared::{self, HotTier};
use crate::pg::varlena::{Jsonb, Varlena};
use pg_cache_core::{Exported, Key, Kind};
use std::fmt::Write;
use std::io;

/// A value in the form for Redis.
#[derive(Debug)]
pub struct Copy {
    /// The value as JSON text.
    pub json: String,
    /// The rest of its time to live in milliseconds.
    pub ttl_ms: u64,
    /// The tags of the value.
    pub tags: Vec<Vec<u8>>,
    /// The relations that it depends on: the database and the OID of each.
    pub relations: Vec<(u32, u32)>,
}

/// Returns the value of a key that belongs to all roles, if Redis is to have a copy of it now. `is_utf8` says whether the encoding
/// of the database is UTF-8. In another encoding, only values in ASCII are returned, because JSON text is in UTF-8 and only a
/// session of the database could convert them. May raise errors.
pub fn look(tier: &HotTier, database: u32, space: u32, key: &[u8], is_utf8: bool) -> Option<Copy> {
    let key = Key::new(tier.scope(database, space, 0), key, hash(key))?;
    let found = tier.export(&key).or_raise()?;
    memory::check();
    let json = json(&found).filter(|json| json.len() <= JSON_BYTES_MAX && (is_utf8 || json.is_ascii()))?;
    let ttl_ms = shared::ms_until(found.meta.expires);
    let tags = memory::collect(note::tags(found.meta.kind, &found.note).map(memory::copy));
    (ttl_ms > 0).then_some(Copy { json, ttl_ms, tags, relations: found.relations })
}

/// The most bytes of JSON text: half of the default of `proto-max-bulk-len`, above which Redis ends the connection.
const JSON_BYTES_MAX: usize = 256 << 20;

/// Receives text. Without memory, that is an error, and the process goes on.
struct Fallible(Vec<u8>);

impl io::Write for Fallible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a value as JSON text. None if it has no form for Redis, is text that is not in UTF-8, or finds no memory. May raise
/// errors.
fn json(found: &Exported) -> Option<String> {
    let bytes = found.value.as_slice();
    match found.meta.kind {
        JSONB => {
            let _scratch = Scratch::new();
            jsonb::text(&Jsonb(Varlena::of(bytes)))
        }
        TEXT => {
            let mut json = Fallible(Vec::new());
            serde_json::to_writer(&mut json, std::str::from_utf8(bytes).ok()?).ok()?;
            String::from_utf8(json.0).ok()
        }
        BYTEA => {
            let mut hex = String::new();
            hex.try_reserve_exact(bytes.len() * 2 + 5).or_raise();
            hex.push_str(r#""\\x"#);
            // Writing to a String cannot fail.
            bytes.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
            hex.push('"');
            Some(hex)
        }
        Kind::COUNTER => bytes.first_chunk().map(|word| i64::from_ne_bytes(*word).to_string()),
        _ => None,
    }
}
