//! Templates: texts with placeholders in braces, such as `order:{id}`, that become keys, patterns or tags. Two braces stand for
//! one.

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
