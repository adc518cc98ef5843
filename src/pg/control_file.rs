//! `pg_control`, the server's file about the state of its data directory.
//!
//! The server writes the file at each checkpoint, at its start and at its end. So two reads of the same content prove that no
//! server has run on the data directory in between.

use super::fingerprint::{Digest, digest};
use pgrx::pg_sys;
use rustix::fs::{Mode, OFlags, open};
use std::mem::offset_of;

/// Relative to the data directory, which is the working directory of the server.
const PATH: &std::ffi::CStr = c"global/pg_control";
/// The content, without the zeroes that follow it.
const BYTES: usize = size_of::<pg_sys::ControlFileData>();

/// The state of the data directory.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Whether the last server has written its shutdown checkpoint and was not a standby.
    pub is_shut_down: bool,
    /// The timeline of the last checkpoint.
    pub timeline: u32,
    /// The digest of the whole content.
    pub digest: Digest,
}

/// Reads the file. Returns None if it cannot be read or its checksum is wrong. Allocates nothing and raises no error. Must only be
/// called in the postmaster while it has no children (`restart.rs`), because other processes may write the file.
pub fn read() -> Option<Control> {
    let mut content = [0; BYTES];
    let file = open(PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // The server writes the file in one piece.
    if rustix::io::read(&file, &mut content) != Ok(BYTES) {
        return None;
    }
    let word =
        |at: usize| content.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    let crc_at = offset_of!(pg_sys::ControlFileData, crc);
    if word(crc_at) != Some(crc32c(&content[..crc_at])) {
        return None;
    }
    let timeline_at =
        offset_of!(pg_sys::ControlFileData, checkPointCopy) + offset_of!(pg_sys::CheckPoint, ThisTimeLineID);
    Some(Control {
        is_shut_down: word(offset_of!(pg_sys::ControlFileData, state))? == pg_sys::DBState::DB_SHUTDOWNED,
        timeline: word(timeline_at)?,
        digest: digest([&content[..]]),
    })
}

/// Returns the checksum of the file (CRC-32C), computed bit by bit: the file is small. The constant is the Castagnoli polynomial
/// with its bits in reverse order.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}
