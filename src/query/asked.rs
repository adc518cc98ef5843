//! A call of `cache_query` or of one of its family, and the key of its result.
//!
//! The *key* of a result is a SHA-256 hash of everything that decides about the result except data and definitions:
//! - the form of the result: rows, a jsonb of all rows, or a jsonb of the only value;
//! - the text of the query without comments (`text.rs`), and its arguments;
//! - the relations that the caller has named as the dependencies of the result (`depends`);
//! - the *reader* of a cached view: its hidden view, and the role with whose privileges the hidden view is read (`pg/reader.rs`);
//! - the *environment*: the database, the roles, the search path and the settings (`pg/environment/digest.rs`).
//!
//! It is infeasible to find two different queries with the same SHA-256 hash. So a hit compares neither texts nor arguments.
//! Changes of data and definitions need not be a part of the key, because they invalidate the result (`ticket.rs`).
//!
//! The environment has two digests. The *basic* one leaves out the settings that only `current_setting` can read. If a query reads
//! settings, its result lies under the key with the *full* digest, and a marker under the key with the basic digest says so. One
//! run of the query stores both. For each of the two keys it needs a fill, the right to store a value (`ticket.rs`).

use super::job::Wanted;
use super::last_key::{Hash, Inputs};
use super::texts::Known;
use crate::pg::query::Arguments;
use crate::pg::reader::Reader;
use crate::store::keyspace::{self, QueryKey};
use crate::store::note::{Form, Terms};
use sha2::{Digest, Sha256};

/// A call of `cache_query` or of one of its family.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The text of the query, as the caller has passed it.
    pub text: &'a [u8],
    pub arguments: Arguments<'a>,
    // `Wanted` explains the next five fields (`job.rs`).
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    pub stale_ok_ms: Option<u64>,
    pub refresh: bool,
    /// Sorted, without duplicates. With None, the result depends on what the query reads; with an empty list, on no relation.
    pub depends: Option<&'a [u32]>,
    /// The role with whose privileges the query reads a relation, for cached views. None for all other calls.
    pub reader: Option<Reader>,
}

impl Asked<'_> {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let Asked { ttl_ms, tags, stale_ok_ms, refresh, depends, .. } = *self;
        Wanted { ttl_ms, tags, stale_ok_ms, refresh, depends }
    }

    /// Returns the terms by which a worker can run the query again. None for calls that a worker cannot repeat: those of wrappers
    /// of functions and of cached views, and those with `depends`.
    pub(super) fn terms(&self) -> Option<Terms<'_>> {
        let Arguments::Json(array) = self.arguments else { return None };
        let is_plain = self.depends.is_none() && self.reader.is_none();
        is_plain.then(|| Terms { arguments: array.bytes(), ttl_ms: self.ttl_ms })
    }

    /// Returns the key of the result in this environment: the prefix, and the hash in hexadecimal digits.
    pub(super) fn key(&self, form: Form, text: &Known, environment: &Hash) -> QueryKey {
        if self.depends.is_some() {
            return self.new_key(form, text, environment);
        }
        let inputs = Inputs { form, environment, reader: self.reader, arguments: self.arguments.bytes() };
        text.last_key.of(inputs, || self.new_key(form, text, environment))
    }

    /// Computes the key. A part whose length varies must have its length before it or come last, so that different calls hash
    /// different bytes. A part that is added here must also be added to [`Inputs`] (`last_key.rs`).
    fn new_key(&self, form: Form, text: &Known, environment: &Hash) -> QueryKey {
        let mut digest = Sha256::new().chain_update([form as u8]).chain_update(text.hash);
        let count = self.depends.map_or(u64::MAX, |oids| oids.len() as u64);
        digest.update(count.to_le_bytes());
        self.depends.unwrap_or_default().iter().for_each(|oid| digest.update(oid.to_le_bytes()));
        digest.update(environment);
        digest.update([u8::from(self.reader.is_some())]);
        if let Some(Reader { relation, role }) = self.reader {
            digest.update(relation.to_le_bytes());
            digest.update(role.oid().to_le_bytes());
        }
        digest.update(self.arguments.bytes());
        let hash: Hash = digest.finalize().into();
        keyspace::query_key(&hash)
    }
}
