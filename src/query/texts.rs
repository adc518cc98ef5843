//! Remembers the facts about the texts of queries that this session has run, so that a hit does not scan its text again.

use super::last_key::LastKey;
use super::text::{self, Lexing, Text};
use crate::pg::environment;
use crate::pg::memory::{self, OutOfMemory};
use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The facts about the text of a query.
#[derive(Debug)]
pub struct Known {
    /// The SHA-256 hash of the normal text.
    pub hash: [u8; 32],
    pub text: Text,
    pub(super) last_key: LastKey,
}

/// The facts about texts, by the bytes of the text.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<Vec<u8>, Rc<Known>, RandomState>,
    /// The estimated memory of `known`, in bytes.
    bytes: usize,
}

/// A session whose texts would take more bytes than this forgets all of them before it remembers another one.
const TEXTS_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a text that is remembered.
const TEXT_BYTES_MAX: usize = TEXTS_BYTES_MAX / 16;
/// The estimated memory of one text besides its bytes, in bytes. It includes the last key and its arguments.
const OVERHEAD_BYTES: usize = 768;

thread_local! {
    static TEXTS: RefCell<Texts> = RefCell::default();
}

/// Returns the facts about a text, and remembers them.
pub fn know(raw: &[u8]) -> Result<Rc<Known>, OutOfMemory> {
    let (standard_strings, utf8) = environment::lexing();
    // Without `standard_conforming_strings`, the same text has another meaning, so it is not remembered.
    let known = TEXTS.with_borrow(|texts| texts.known.get(raw).filter(|_| standard_strings).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    memory::check();
    let text = text::analyse(raw, Lexing { standard_strings, utf8 })?;
    let hash = Sha256::digest(&text.normal).into();
    let known = Rc::new(Known { hash, text, last_key: LastKey::default() });
    if raw.len() <= TEXT_BYTES_MAX && standard_strings {
        remember(memory::try_copy(raw)?, &known);
    }
    Ok(known)
}

fn remember(raw: Vec<u8>, known: &Rc<Known>) {
    TEXTS.with_borrow_mut(|texts| {
        // The normal text and the identifiers are each about as long as the text, and each identifier has an overhead.
        let identifiers = known.text.identifiers.as_ref().map_or(0, |names| names.len());
        let bytes = OVERHEAD_BYTES + 3 * raw.len() + 64 * identifiers;
        if texts.bytes + bytes > TEXTS_BYTES_MAX {
            *texts = Texts::default();
        }
        if texts.known.try_reserve(1).is_ok() {
            texts.bytes += bytes;
            texts.known.insert(raw, Rc::clone(known));
        }
    });
}
