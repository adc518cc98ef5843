//! Replacements for functions of the layer `pg` (`src/pg/`), which need a server in the library. The files of the library that
//! `main.rs` compiles call these instead. They assume that the encoding of the database is UTF-8. Each must have the signature and
//! the result of its model. If a compiled file calls another function of the layer, it needs a replacement here.

/// Stands for `src/pg/encoding.rs`.
pub mod encoding {
    /// Returns the beginning of a text: at most `most` bytes, up to the end of a character.
    pub fn clipped(text: &[u8], most: usize) -> &[u8] {
        let mut end = most.min(text.len());
        while end < text.len() && end > 0 && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        &text[..end]
    }
}

/// Stands for `src/pg/memory.rs`.
pub mod memory {
    /// An allocation that failed.
    #[derive(Debug)]
    pub struct OutOfMemory;

    impl From<std::collections::TryReserveError> for OutOfMemory {
        fn from(_: std::collections::TryReserveError) -> Self {
            Self
        }
    }

    /// Makes room for more elements. In a server, it raises an error if there is no memory.
    pub fn reserve<T>(list: &mut Vec<T>, more: usize) {
        list.reserve(more);
    }
}
