//! The note of an entry: its tags. An entry depends on the fences of its tags (`docs/architecture.md`), and fences have no names.
//! So the note tells them to an operator.
//!
//! A tag is one byte with its length minus one, followed by its bytes. No tag is empty or longer than 256 bytes.

use crate::pg::memory::OutOfMemory;

/// Returns the length in bytes of the note of some tags. An entry takes a note of at most `NOTE_BYTES_MAX` bytes, which is more
/// than a value's tags can need (`api/arguments.rs`).
pub fn len(tags: &[&[u8]]) -> usize {
    tags.iter().map(|tag| 1 + tag.len()).sum()
}

/// Returns the note of some tags. It has no bytes if there are no tags.
pub fn of_tags(tags: &[&[u8]]) -> Result<Box<[u8]>, OutOfMemory> {
    let mut note = Vec::new();
    note.try_reserve_exact(len(tags))?;
    for tag in tags {
        note.push(tag.len().saturating_sub(1) as u8);
        note.extend_from_slice(tag);
    }
    Ok(note.into_boxed_slice())
}

/// Returns the tags of a note. A note that is damaged ends early.
pub fn tags(note: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = note;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first()?;
        let (tag, next) = behind.split_at_checked(usize::from(*length) + 1)?;
        rest = next;
        Some(tag)
    })
}
