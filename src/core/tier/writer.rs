//! Writes an entry into its blocks: the header, and then the stream of bytes that `entry.rs` describes. Only the owner of a
//! *reservation*, blocks that no reader can find yet, may use a writer. It must be done before the entry is linked into its hash
//! bucket. A *run* is a row of neighbouring blocks; an entry may have several (`runs.rs`).

use super::entry::Entry;
use super::header::Header;
use super::runs::Runs;
use crate::layout::Layout;
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

/// Writes a stream of bytes into blocks that no other process can find yet.
pub(crate) struct Writer<'m> {
    region: Region<'m>,
    layout: &'m Layout,
    runs: Runs<'m>,
    /// The words of the present run that are not written yet.
    words: std::slice::Iter<'m, AtomicU64>,
    /// The bytes of the word that is not full yet.
    partial_word: [u8; 8],
    /// How many bytes of `partial_word` are filled.
    filled: usize,
}

impl<'m> Writer<'m> {
    /// Creates a writer and writes the header of an entry. The flag for a chain must already be set in `header`, and the links
    /// between the runs in their blocks (`allocation.rs`).
    pub(crate) fn new(entry: &Entry<'m>, layout: &'m Layout, header: &Header) -> Self {
        let runs = entry.runs(layout, header);
        let mut writer =
            Self { region: entry.region, layout, runs, words: [].iter(), partial_word: [0; 8], filled: 0 };
        for word in header.words {
            writer.put(word);
        }
        writer
    }

    /// Appends bytes to the stream. The runs must have room for them: bytes beyond the last run are dropped.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.filled > 0 {
            let (head, behind) = rest.split_at(rest.len().min(8 - self.filled));
            self.partial_word[self.filled..self.filled + head.len()].copy_from_slice(head);
            self.filled += head.len();
            rest = behind;
            if self.filled < 8 {
                return;
            }
            self.put(u64::from_ne_bytes(self.partial_word));
        }
        let mut words = rest.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            self.put(u64::from_ne_bytes(bytes));
        }
        let tail = words.remainder();
        self.partial_word = [0; 8];
        self.partial_word[..tail.len()].copy_from_slice(tail);
        self.filled = tail.len();
    }

    /// Appends a note, the bytes that are stored beside a value, if there is one.
    pub(crate) fn write_note(&mut self, note: &[u8]) {
        if !note.is_empty() {
            self.write(&(note.len() as u16).to_ne_bytes());
            self.write(note);
        }
    }

    /// Pads the word that is not full yet with zeros.
    pub(crate) fn align(&mut self) {
        if self.filled > 0 {
            self.write(&[0; 8][self.filled..]);
        }
    }

    /// Writes the last word if it is not full. Every writer must end with this call.
    pub(crate) fn finish(mut self) {
        if self.filled > 0 {
            self.put(u64::from_ne_bytes(self.partial_word));
        }
    }

    /// Writes the next word of the stream, if a run has room for it.
    #[inline]
    fn put(&mut self, value: u64) {
        let word = match self.words.next() {
            Some(word) => word,
            None => {
                let Some(run) = self.runs.next() else { return };
                self.words = run.words(self.region, self.layout).iter();
                let Some(word) = self.words.next() else { return };
                word
            }
        };
        word.store(value, Ordering::Relaxed);
    }
}
