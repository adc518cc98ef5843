//! The file that keeps the cache while the server is stopped. `restart.rs` decides when it is written and read.
//!
//! ```text
//! header    4 kB   magic, format, checksums, identity, sizes, state          `Header`
//! region           the shared memory of the cache, byte by byte; parts with free blocks only are holes
//! prepared         the records of prepared transactions
//! ```
//!
//! - A server that starts with a cache removes the file, durably, before it uses the content. So a crash never leads back to an old
//!   state of the cache, and a base backup finds no file. A server without a cache, and one in single-user mode, leave the file.
//!   But they change `pg_control`, so the file then fits no state any more.
//! - It is written under another name, and gets its name when all of it is on disk.
//! - Its header has the digest of `pg_control`. So it fits one state of one data directory.
//!
//! Saving runs in the postmaster at its exit: it allocates nothing, raises no error and ends in time. The paths are relative: the
//! working directory of the server is its data directory.

use super::clock::Reading;
use super::fingerprint::Digest;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom, fdatasync, fstat, fsync, ftruncate, open, rename, seek, unlink};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use std::ffi::CStr;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};
use twox_hash::XxHash3_64;

const FILE: &CStr = c"pg_cache.region";
const TEMPORARY: &CStr = c"pg_cache.region.tmp";

const MAGIC: u64 = u64::from_ne_bytes(*b"pgcachef");
/// The version of the format. It must change whenever the meaning of the file changes.
const FORMAT: u64 = 1;
const HEADER_BYTES: usize = 4096;
/// The content is read, written and summed up in pieces of this many bytes.
const PIECE: usize = 64 * 1024;
static ZEROES: [u8; PIECE] = [0; PIECE];
/// The bytes that are written between two waits for the disk, so that a slow disk is noticed before [`SAVE_TIME`] is long over.
const SYNC_BYTES: usize = 16 << 20;
/// Saving that takes longer is given up: it delays the end of the server.
const SAVE_TIME: Duration = Duration::from_secs(10);
/// Loading that takes longer is given up: it delays the start of the server.
const LOAD_TIME: Duration = Duration::from_secs(5);

/// A state of a data directory and a server that a saved cache fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The digest of `pg_control`.
    pub control: Digest,
    /// The digest of the server's programs and libraries.
    pub programs: Digest,
    /// The digest of the settings on which results depend.
    pub settings: Digest,
}

/// The state of the cache beside the bytes of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub clock: Reading,
    /// The seed of the hashes by which keys are found.
    pub hash_seed: u64,
    /// The timeline of the database at the shutdown.
    pub timeline: u64,
}

/// The reason why the file was not written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A call of the system failed.
    System(&'static str, Errno),
    /// The file does not fit, or there is not enough time.
    Because(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(call, error) => {
                write!(
                    formatter,
                    "could not {call} file \"pg_cache.region\": {}",
                    std::io::Error::from(*error)
                )
            }
            Self::Because(why) => formatter.write_str(why),
        }
    }
}

/// Returns a function that turns an error of a system call into a failure. `call` says what the call was to do.
fn failed(call: &'static str) -> impl Fn(Errno) -> Failure {
    move |error| Failure::System(call, error)
}

/// The words of the header, in order: magic, checksum of the words after it, format, checksum of the content, identity (control,
/// programs, settings: four words each), sizes of region and records in bytes, and state (hash seed, timeline, clock).
struct Header([u64; HEADER_WORDS]);

const HEADER_WORDS: usize = 27;

impl Header {
    fn new(identity: &Identity, sizes: [usize; 2], state: &State, checksum: u64) -> Self {
        let State { clock, hash_seed, timeline } = state;
        let words = [FORMAT, checksum]
            .into_iter()
            .chain([identity.control, identity.programs, identity.settings].into_iter().flatten())
            .chain(sizes.map(|size| size as u64))
            .chain([*hash_seed, *timeline, clock.elapsed_ms, clock.machine_ms, clock.wall_ms])
            .chain(clock.run);
        let mut header = Self([MAGIC; HEADER_WORDS]);
        header.0[2..].iter_mut().zip(words).for_each(|(to, word)| *to = word);
        header.0[1] = header.own_checksum();
        header
    }

    /// Returns the checksum of the words behind it.
    fn own_checksum(&self) -> u64 {
        self.0[2..].iter().fold(MAGIC, |sum, word| XxHash3_64::oneshot_with_seed(sum, &word.to_ne_bytes()))
    }

    fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0).for_each(|(to, word)| *to = word.to_ne_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self(std::array::from_fn(|word| u64::from_ne_bytes(bytes.as_chunks::<8>().0[word])))
    }

    /// Returns the four words of a digest, or of the name of a run, from word `at` on.
    fn digest(&self, at: usize) -> Digest {
        std::array::from_fn(|word| self.0[at + word])
    }

    fn checksum(&self) -> u64 {
        self.0[3]
    }

    fn state(&self) -> State {
        let clock = Reading {
            elapsed_ms: self.0[20],
            machine_ms: self.0[21],
            wall_ms: self.0[22],
            run: self.digest(23),
        };
        State { clock, hash_seed: self.0[18], timeline: self.0[19] }
    }

    /// Returns why the content must not be used, or nothing if it fits.
    fn objection(&self, identity: &Identity, sizes: [usize; 2]) -> Option<&'static str> {
        let objections = [
            (self.0[0] != MAGIC || self.0[1] != self.own_checksum(), "the saved cache is damaged"),
            (self.0[2] != FORMAT, "another version of pg_cache has saved it"),
            (
                self.digest(4) != identity.control,
                "the saved cache is not that of the last server run on this data directory",
            ),
            (self.digest(8) != identity.programs, "the programs or libraries of the server have changed"),
            (self.digest(12) != identity.settings, "settings that results depend on have changed"),
            (
                sizes.map(|size| size as u64) != [self.0[16], self.0[17]],
                "settings that size shared memory have changed",
            ),
        ];
        objections.into_iter().find_map(|(holds, why)| holds.then_some(why))
    }
}

/// Reads the saved cache into `region` and `records`, which must be full of zeroes, and returns the state of the cache and when its
/// clock began (`clock.rs`). Removes the file in any case; if that is impossible, this fails. Without an `identity`, fails with the
/// reason in it. Returns None if there is no file. If this fails, both may hold anything.
pub fn load(
    identity: Result<Identity, &'static str>,
    region: &mut [u8],
    records: &mut [u8],
) -> Result<Option<(State, u64)>, Failure> {
    let deadline = Instant::now() + LOAD_TIME;
    // A server that was killed while it saved has left this file.
    let _ = unlink(TEMPORARY);
    let file = match open(FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => file.map_err(failed("open")),
    };
    let sizes = [region.len(), records.len()];
    let header = file.and_then(|file| {
        let identity = identity.map_err(Failure::Because)?;
        let header = read_header(&file, &identity, sizes)?;
        let began_ms = header.state().clock.resume();
        began_ms
            .map(|began_ms| (file, header, began_ms))
            .ok_or(Failure::Because("the system clock was set back"))
    });
    // Nothing of the file may be used before it is certain that no later start finds it.
    let removed = unlink(FILE).and_then(|()| sync_directory()).map_err(failed("remove"));
    let (file, header, began_ms) = header?;
    removed?;
    let mut checksum = 0;
    let mut at = HEADER_BYTES as u64;
    let mut data_at = at;
    for piece in region.chunks_mut(PIECE).chain(records.chunks_mut(PIECE)) {
        if Instant::now() > deadline {
            return Err(Failure::Because("reading the saved cache takes too long"));
        }
        let end = at + piece.len() as u64;
        if data_at < end {
            data_at = next_data(&file, at);
        }
        // The memory of a hole is full of zeroes already, and its pages are not even there yet.
        let content = if data_at < end {
            read_all(&file, piece, at)?;
            &*piece
        } else {
            &ZEROES[..piece.len()]
        };
        at = end;
        checksum = XxHash3_64::oneshot_with_seed(checksum, content);
    }
    match checksum == header.checksum() {
        true => Ok(Some((header.state(), began_ms))),
        false => Err(Failure::Because("the saved cache is damaged")),
    }
}

/// Returns the position at or after `at` at which the next data begins, or the largest number if only a hole follows. If the file
/// system cannot tell, there may be data at `at`.
fn next_data(file: &OwnedFd, at: u64) -> u64 {
    match seek(file, SeekFrom::Data(at)) {
        Ok(found) => found,
        Err(Errno::NXIO) => u64::MAX,
        Err(_) => at,
    }
}

/// Reads the header. Fails if the content must not be used, or if the file has another length than the header tells.
fn read_header(file: &OwnedFd, identity: &Identity, sizes: [usize; 2]) -> Result<Header, Failure> {
    let mut bytes = [0; HEADER_BYTES];
    read_all(file, &mut bytes, 0)?;
    let header = Header::of_bytes(&bytes);
    if let Some(why) = header.objection(identity, sizes) {
        return Err(Failure::Because(why));
    }
    let length = fstat(file).map_err(failed("read"))?.st_size;
    match length as usize == HEADER_BYTES + sizes[0] + sizes[1] {
        true => Ok(header),
        false => Err(Failure::Because("the saved cache is not complete")),
    }
}

/// Fills `into` with the bytes of the file from `at` on. Fails if the file is too short.
fn read_all(file: &OwnedFd, into: &mut [u8], at: u64) -> Result<(), Failure> {
    let mut read = 0;
    while read < into.len() {
        match retry_on_intr(|| pread(file, &mut into[read..], at + read as u64)).map_err(failed("read"))? {
            0 => return Err(Failure::Because("the saved cache is not complete")),
            count => read += count,
        }
    }
    Ok(())
}

/// Writes the cache to the file. `is_in_use` tells whether a range of the region's bytes holds anything. With `durable`, waits for
/// the disk. If this fails, there is no file, except after a failed sync of the directory: the file is whole then. Allocates
/// nothing and raises no error.
pub fn save(
    identity: &Identity,
    state: &State,
    region: &[u8],
    records: &[u8],
    durable: bool,
    is_in_use: impl Fn(Range<usize>) -> bool,
) -> Result<(), Failure> {
    let _ = unlink(TEMPORARY);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    // The server's own mask takes away what other accounts may do.
    let file = open(TEMPORARY, flags, Mode::from_raw_mode(0o666)).map_err(failed("create"))?;
    let mut writer = Writer {
        file,
        durable,
        at: HEADER_BYTES as u64,
        unsynced: 0,
        checksum: 0,
        deadline: Instant::now() + SAVE_TIME,
    };
    let written =
        writer.write(region, is_in_use).and_then(|()| writer.write(records, |_| true)).and_then(|()| {
            let header = Header::new(identity, [region.len(), records.len()], state, writer.checksum);
            ftruncate(&writer.file, writer.at).map_err(failed("write"))?;
            write_all(&writer.file, &header.to_bytes(), 0)?;
            writer.sync()?;
            rename(TEMPORARY, FILE).map_err(failed("rename"))?;
            if durable { sync_directory().map_err(failed("rename")) } else { Ok(()) }
        });
    if written.is_err() {
        let _ = unlink(TEMPORARY);
    }
    written
}

/// The new file, while it is written.
struct Writer {
    file: OwnedFd,
    durable: bool,
    /// The position in the file at which the next piece begins.
    at: u64,
    /// The bytes that were written since the last wait for the disk.
    unsynced: usize,
    /// The checksum of all pieces so far.
    checksum: u64,
    deadline: Instant,
}

impl Writer {
    /// Writes bytes. A piece without any content becomes a hole, which is read as zeroes.
    fn write(&mut self, bytes: &[u8], is_in_use: impl Fn(Range<usize>) -> bool) -> Result<(), Failure> {
        for (piece, start) in bytes.chunks(PIECE).zip((0..).step_by(PIECE)) {
            let zeroes = &ZEROES[..piece.len()];
            let content = if is_in_use(start..start + piece.len()) { piece } else { zeroes };
            self.checksum = XxHash3_64::oneshot_with_seed(self.checksum, content);
            if content != zeroes {
                write_all(&self.file, content, self.at)?;
                self.unsynced += piece.len();
            }
            self.at += piece.len() as u64;
            if self.unsynced >= SYNC_BYTES {
                self.sync()?;
            }
            if Instant::now() > self.deadline {
                return Err(Failure::Because("writing takes too long"));
            }
        }
        Ok(())
    }

    /// Waits for the disk, if the file must be durable.
    fn sync(&mut self) -> Result<(), Failure> {
        self.unsynced = 0;
        if self.durable {
            retry_on_intr(|| fdatasync(self.file.as_fd())).map_err(failed("write"))
        } else {
            Ok(())
        }
    }
}

/// Writes all bytes to the file from `at` on.
fn write_all(file: &OwnedFd, bytes: &[u8], at: u64) -> Result<(), Failure> {
    let mut written = 0;
    while written < bytes.len() {
        match retry_on_intr(|| pwrite(file, &bytes[written..], at + written as u64))
            .map_err(failed("write"))?
        {
            0 => return Err(Failure::System("write", Errno::NOSPC)),
            count => written += count,
        }
    }
    Ok(())
}

/// Makes the names of files in the data directory durable.
fn sync_directory() -> Result<(), Errno> {
    let directory = open(c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    retry_on_intr(|| fsync(&directory))
}
