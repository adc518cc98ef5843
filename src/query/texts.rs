//! The texts of queries that this session has seen, so that a hit need not read its text again.

use super::text::{self, Lexing, Text};
use crate::pg::environment;
use crate::pg::memory::{self, OutOfMemory};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A query's text, as this session has read it.
#[derive(Debug)]
pub struct Known {
    /// The SHA-256 hash of the normal text.
    pub hash: [u8; 32],
    pub text: Text,
}

/// The texts that this session has seen, by their bytes.
#[derive(Debug, Default)]
struct Texts {
    known: HashMap<Vec<u8>, Rc<Known>>,
    /// About how many bytes `known` takes.
    bytes: usize,
}

/// A session that has this many bytes of texts forgets them all before it remembers another one.
const TEXTS_BYTES_MAX: usize = 1 << 20;
/// A longer text is not remembered.
const TEXT_BYTES_MAX: usize = TEXTS_BYTES_MAX / 16;
/// An estimate of the memory of one text besides its bytes.
const OVERHEAD_BYTES: usize = 512;

thread_local! {
    static TEXTS: RefCell<Texts> = RefCell::default();
}

/// Returns what there is to know of a text.
pub fn know(raw: &[u8]) -> Result<Rc<Known>, OutOfMemory> {
    let (standard_strings, utf8) = environment::lexing();
    // Without `standard_conforming_strings`, the same text means something else.
    let known = TEXTS.with_borrow(|texts| texts.known.get(raw).filter(|_| standard_strings).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    memory::check();
    let text = text::analyse(raw, Lexing { standard_strings, utf8 })?;
    let known = Rc::new(Known { hash: Sha256::digest(&text.normal).into(), text });
    if raw.len() <= TEXT_BYTES_MAX && standard_strings {
        remember(memory::try_copy(raw)?, &known);
    }
    Ok(known)
}

fn remember(raw: Vec<u8>, known: &Rc<Known>) {
    TEXTS.with_borrow_mut(|texts| {
        // The normal text and the identifiers are about as long as the text, and each identifier has an overhead of its own.
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
