//! Templates: texts with *placeholders* in braces, such as `order:{id}`. Two braces stand for one. A template becomes a key, a
//! pattern or a tag when each placeholder gets a value: that of a column of a changed row (`row_tags.rs`), or a member of an event
//! (`event.rs`).
//!
//! `watch.rs` finds the templates that a tag may come from by their *prefix*, the beginning of both up to a separator such as `:`.
//! So [`Template::prefix`] and [`prefix`] must use the same rule.

use crate::pg::memory;

/// A template, split into its parts.
#[derive(Debug)]
pub struct Template<'a> {
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
enum Part<'a> {
    Text(&'a [u8]),
    Placeholder(&'a [u8]),
}

/// The reason why a text is not a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// An opening brace has no closing brace.
    Unclosed,
    /// A closing brace has no opening brace.
    Unopened,
    /// Nothing is between two braces.
    Empty,
}

impl Malformed {
    /// Returns the reason in words, as the detail of an error.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unclosed => "An opening brace has no closing brace.",
            Self::Unopened => "A closing brace has no opening brace.",
            Self::Empty => "There is no name between the braces.",
        }
    }
}

impl<'a> Template<'a> {
    /// Splits a text into parts. Raises an error if there is no memory.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| b"{}".contains(byte)) {
            let (brace, behind) = (rest[at], &rest[at + 1..]);
            if behind.first() == Some(&brace) {
                memory::push(&mut parts, Part::Text(&rest[..=at]));
                rest = &behind[1..];
                continue;
            }
            if brace == b'}' {
                return Err(Malformed::Unopened);
            }
            let end = behind.iter().position(|byte| b"{}".contains(byte));
            let end = end.filter(|end| behind[*end] == b'}').ok_or(Malformed::Unclosed)?;
            if end == 0 {
                return Err(Malformed::Empty);
            }
            memory::push(&mut parts, Part::Text(&rest[..at]));
            memory::push(&mut parts, Part::Placeholder(&behind[..end]));
            rest = &behind[end + 1..];
        }
        memory::push(&mut parts, Part::Text(rest));
        Ok(Self { parts })
    }

    /// Returns whether a text may be the template with some values in place of its placeholders.
    pub fn could_be(&self, text: &[u8]) -> bool {
        // The fixed bytes between placeholders, in order. Two braces that stand for one end a part, but are no placeholder.
        let mut fixed = vec![Vec::new()];
        for part in &self.parts {
            match (part, fixed.last_mut()) {
                (Part::Text(bytes), Some(last)) => last.extend_from_slice(bytes),
                _ => memory::push(&mut fixed, Vec::new()),
            }
        }
        let (Some(first), Some(last)) = (fixed.first(), fixed.last()) else { return false };
        if fixed.len() == 1 {
            return *text == **first;
        }
        let Some(mut rest) = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
            return false;
        };
        for part in fixed.iter().skip(1).take(fixed.len() - 2).filter(|part| !part.is_empty()) {
            let Some(at) = rest.windows(part.len()).position(|window| *window == **part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        true
    }

    /// Calls `with` for each part in order: with its fixed bytes, or with the name of its placeholder. Ends when `with` returns
    /// None.
    pub fn each_part(&self, mut with: impl FnMut(&[u8], Option<&[u8]>) -> Option<()>) -> Option<()> {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(bytes) => with(bytes, None),
            Part::Placeholder(name) => with(&[], Some(name)),
        })
    }

    /// Returns the fixed bytes up to and including the first one that is no letter, digit or underscore, if they come before the
    /// first placeholder.
    pub fn prefix(&self) -> Option<Vec<u8>> {
        let mut fixed = Vec::new();
        let texts = self.parts.iter().map_while(|part| match part {
            Part::Text(bytes) => Some(*bytes),
            Part::Placeholder(_) => None,
        });
        texts.for_each(|bytes| fixed.extend_from_slice(bytes));
        prefix(&fixed).map(memory::copy)
    }

    /// Returns the text with the value of each placeholder in its place. `value` adds the value of a placeholder to the text.
    pub fn fill<E>(&self, mut value: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), E>) -> Result<Vec<u8>, E> {
        let mut text = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(bytes) => {
                    memory::reserve(&mut text, bytes.len());
                    text.extend_from_slice(bytes);
                }
                Part::Placeholder(name) => value(name, &mut text)?,
            }
        }
        Ok(text)
    }
}

/// Returns the beginning of a tag, up to and including the first byte that is no letter, digit or underscore. None if there is no
/// such byte. Bytes beyond ASCII count as letters.
pub fn prefix(tag: &[u8]) -> Option<&[u8]> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    let at = tag.iter().position(|byte| !is_word(byte))?;
    Some(&tag[..=at])
}
