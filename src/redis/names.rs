//! The names in Redis: keys, sets, channels, and patterns for scans.
//!
//! A Redis key is `<prefix><database>:<space>:<key>`. In the names of databases and spaces, `%`, `:`, `#`, control bytes and bytes
//! above 126 are written as `%XX`, and the key is as it is. So two different entries never have the same Redis key. A set, which
//! has the Redis keys of the values that depend on a tag or a relation, is `<prefix><database>#tags:<bucket>:<hash>`. A bucket is a
//! stretch of time (`workers/redis/sets.rs`). No written name contains a `#`, so no entry has the key of a set.

use std::fmt::Write;

/// The names for one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Creates the names that begin with a prefix.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Returns how the Redis keys of a space begin.
    pub fn space(&self, database: &[u8], space: &str) -> String {
        let mut name = self.database(database);
        escape(space.as_bytes(), &mut name);
        name.push(':');
        name
    }

    /// Returns how the Redis keys of a database begin.
    pub fn database(&self, database: &[u8]) -> String {
        let mut name = self.channel(database);
        name.push(':');
        name
    }

    /// Returns the channel on which the changes of a database are announced.
    pub fn channel(&self, database: &[u8]) -> String {
        let mut name = self.prefix.clone();
        escape(database, &mut name);
        name
    }

    /// Returns the Redis key of the set for a tag or a relation with this hash, in a bucket.
    pub fn set(&self, database: &[u8], bucket: u64, hash: u64) -> String {
        let mut name = self.channel(database);
        // Writing to a String cannot fail.
        let _ = write!(name, "#tags:{bucket}:{hash:016x}");
        name
    }

    /// Returns whether a Redis key is that of a set.
    pub fn is_set(&self, redis_key: &[u8]) -> bool {
        let rest = redis_key.strip_prefix(self.prefix.as_bytes());
        let mark =
            rest.and_then(|rest| Some(&rest[rest.iter().position(|byte| matches!(byte, b'#' | b':'))?..]));
        mark.is_some_and(|mark| mark.starts_with(b"#tags:"))
    }

    /// Returns the prefix: how all names begin.
    pub fn all(&self) -> &str {
        &self.prefix
    }

    /// Returns the parts of a Redis key: database, space and key. Returns `None` for sets and for the keys of other programs.
    pub fn parse<'k>(&self, redis_key: &'k [u8]) -> Option<(Vec<u8>, String, &'k [u8])> {
        let rest = redis_key.strip_prefix(self.prefix.as_bytes())?;
        let (database, rest) = split(rest)?;
        let (space, key) = split(rest)?;
        Some((unescape(database)?, String::from_utf8(unescape(space)?).ok()?, key))
    }
}

/// Returns the pattern of `SCAN` that matches the keys with this beginning.
pub fn pattern(prefix: &str) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix.bytes() {
        if b"*?[]^-\\".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'%' | b':' | b'#' | 0..32 | 127..)
}

/// Writes a name of a database or a space, with `%XX` for the bytes that need it.
fn escape(name: &[u8], into: &mut String) {
    for &byte in name {
        if is_escaped(byte) {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        } else {
            into.push(char::from(byte));
        }
    }
}

/// Returns the name that `escape` writes so, or `None` if `escape` never writes these bytes.
fn unescape(written: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(written.len());
    let mut rest = written;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let byte = hex(*high)? << 4 | hex(*low)?;
                if !is_escaped(byte) {
                    return None;
                }
                name.push(byte);
                rest = behind;
            }
            (byte, _) if is_escaped(*byte) => return None,
            (byte, _) => name.push(*byte),
        }
    }
    Some(name)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A small generator, so that a failure can be repeated.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }

        /// A short name of few different characters, so that names are often alike.
        fn name(&mut self) -> String {
            const PARTS: [&str; 14] =
                ["a", "b", ":", "%", "#", "3A", "%3A", " ", "*", "\u{1}", "\u{7f}", "é", "😀", "tags"];
            let length = self.below(4);
            (0..length).map(|_| PARTS[self.below(14) as usize]).collect()
        }
    }

    /// Fails if two different entries have the same Redis key, or if a Redis key is read as another entry.
    #[test]
    fn names_are_read_back_and_are_different() {
        let mut random = Random(42);
        let names = Names::new("pg_cache:");
        let mut seen = HashMap::new();
        for _ in 0..20_000 {
            let (database, space, key) = (random.name(), random.name(), random.name());
            let redis_key = names.space(database.as_bytes(), &space) + &key;
            assert!(redis_key.starts_with(&names.database(database.as_bytes())));
            let parsed = names.parse(redis_key.as_bytes());
            assert_eq!(parsed, Some((database.clone().into_bytes(), space.clone(), key.as_bytes())));
            let parts = (database, space, key);
            assert_eq!(seen.entry(redis_key).or_insert_with(|| parts.clone()), &parts);
        }
    }

    /// Fails if a byte of a name is lost, or is written in a way that is not printable ASCII.
    #[test]
    fn every_byte_of_a_database_name_is_read_back() {
        let names = Names::new("");
        let database: Vec<u8> = (0..=255).collect();
        let redis_key = names.space(&database, "s") + "k";
        assert!(redis_key.bytes().all(|byte| (32..127).contains(&byte)));
        assert_eq!(names.parse(redis_key.as_bytes()), Some((database, "s".to_owned(), &b"k"[..])));
    }

    /// Fails if a set, or a key of another program, is read as the key of an entry: the worker would remove it.
    #[test]
    fn sets_and_foreign_keys_have_no_parts() {
        let names = Names::new("pg_cache:");
        let set = names.set(b"db", 7, 0xab);
        assert_eq!(set, "pg_cache:db#tags:7:00000000000000ab");
        assert!(names.is_set(set.as_bytes()));
        assert!(!names.is_set(b"pg_cache:db:space:#tags:7"));
        assert!(!names.is_set(b"other:db#tags:7:00000000000000ab"));
        for key in [
            set.as_bytes(),
            b"pg_cache:",
            b"pg_cache:db",
            b"pg_cache:db:space",
            b"pg_:db:space:key",
            b"other",
            b"pg_cache:d%3a:s:k",
            b"pg_cache:d%41:s:k",
            b"pg_cache:d%:s:k",
            b"pg_cache:d%4:s:k",
            b"pg_cache:d\xff:s:k",
            b"pg_cache:d:%FF:k",
            b"",
        ] {
            assert_eq!(names.parse(key), None, "{}", String::from_utf8_lossy(key));
        }
    }

    /// Fails if a special character of a prefix would match other keys in a scan.
    #[test]
    fn patterns_match_their_characters_only() {
        assert_eq!(pattern("a*b?[c]\\:"), b"a\\*b\\?\\[c\\]\\\\:*");
    }
}
