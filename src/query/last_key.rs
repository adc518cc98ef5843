//! Remembers the key that a session has computed last for the text of a query. Without SHA-256 instructions of the processor, the
//! hash takes longer than the rest of the search for a small result.

use crate::pg::reader::Reader;
use crate::pg::{allocator, memory};
use crate::store::keyspace::QueryKey;
use crate::store::note::Form;
use std::cell::RefCell;

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// The most bytes of arguments that are remembered.
const ARGUMENTS_BYTES_MAX: usize = 128;

/// Everything that a key is computed from besides the text, for a call without `depends`. It must have every part that
/// `Asked::new_key` hashes (`asked.rs`), and [`Remembered::is_of`] must compare every part: otherwise a call gets the key, and so
/// the result, of another call.
pub(super) struct Inputs<'a> {
    pub form: Form,
    pub environment: &'a Hash,
    pub reader: Option<Reader>,
    pub arguments: &'a [u8],
}

/// A key and what it was computed from.
#[derive(Debug)]
struct Remembered {
    form: Form,
    environment: Hash,
    reader: Option<Reader>,
    arguments: Vec<u8>,
    key: QueryKey,
}

impl Remembered {
    #[inline]
    fn is_of(&self, inputs: &Inputs<'_>) -> bool {
        self.form == inputs.form
            && self.environment == *inputs.environment
            && self.reader == inputs.reader
            && self.arguments == inputs.arguments
    }
}

/// The key that was computed last for a text.
#[derive(Debug, Default)]
pub(super) struct LastKey(RefCell<Option<Remembered>>);

impl LastKey {
    /// Returns the key of these inputs. Calls `compute` and remembers the key, unless it is the last one.
    #[inline]
    pub(super) fn of(&self, inputs: Inputs<'_>, compute: impl FnOnce() -> QueryKey) -> QueryKey {
        if let Some(last) = &*self.0.borrow()
            && last.is_of(&inputs)
        {
            return last.key;
        }
        let key = compute();
        let Inputs { form, environment, reader, arguments } = inputs;
        if arguments.len() <= ARGUMENTS_BYTES_MAX
            && !allocator::is_reserve_used()
            && let Ok(arguments) = memory::try_copy(arguments)
        {
            *self.0.borrow_mut() =
                Some(Remembered { form, environment: *environment, reader, arguments, key });
        }
        key
    }
}
