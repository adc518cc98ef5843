//! Tests of the compression of stored results (`src/query/compress.rs`): a value comes back as it was, and damaged bytes do no
//! harm.

use crate::query::compress::{compress, decompress, length};

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}

/// Rows as a report has them: names that recur, and numbers that do not.
fn rows(bytes: usize) -> Vec<u8> {
    let (mut numbers, mut rows) = (Numbers(1), Vec::new());
    while rows.len() < bytes {
        let name = ["Europe", "Asia Pacific", "North America", "Africa"][numbers.below(4)];
        rows.extend_from_slice(name.as_bytes());
        rows.extend_from_slice(&[0; 6]);
        rows.extend_from_slice(&numbers.next().to_ne_bytes()[..3]);
    }
    rows.truncate(bytes);
    rows
}

/// Decompresses a value. Panics if the bytes are damaged.
fn whole(compressed: &[u8]) -> Vec<u8> {
    let mut into = vec![0xaa; length(compressed).expect("it has a length")];
    assert!(decompress(compressed, &mut into));
    into
}

/// Fails if the decompressed value differs from the one that was compressed, or if the compressed form is not at least an eighth
/// smaller.
#[test]
fn a_compressed_value_comes_back() {
    for bytes in [64, 1000, 65_535, 65_536, 100_000, 3_000_000] {
        let value = rows(bytes);
        let compressed = compress(&value).expect("it pays");
        assert!(compressed.len() <= bytes - bytes / 8);
        assert!(whole(&compressed) == value, "{bytes} bytes");
    }
    let zeros = vec![0; 8 << 20];
    let compressed = compress(&zeros).expect("it pays");
    assert!(compressed.len() < 40_000 && whole(&compressed) == zeros);
}

/// A value that would become less than an eighth smaller is not compressed. Fails if random bytes or short values are compressed,
/// or if the limit is not near an eighth: zeros are 12 % of a value that must be refused, and 14 % of one that must be compressed.
#[test]
fn compression_that_does_not_pay_is_refused() {
    let mut numbers = Numbers(2);
    let random: Vec<u8> = (0..200_000).map(|_| numbers.next() as u8).collect();
    assert_eq!(compress(&random), None);
    for short in [0, 1, 8] {
        assert_eq!(compress(&vec![0; short]), None);
    }
    // The other bytes are random, so compression saves nearly the number of zeros.
    let with_zeros = |count: usize| {
        let mut value = random[..100_000 - count].to_vec();
        value.resize(100_000, 0);
        compress(&value).is_some()
    };
    assert!(!with_zeros(12_000) && with_zeros(14_000));
}

/// Decompressing damaged bytes returns false, or true and other bytes of the recorded length. Fails if it panics, if the recorded
/// length is longer than the bytes can stand for, or if the damage is noticed in at most 10 000 of the cases.
#[test]
fn damaged_bytes_are_read_without_panic() {
    let value = rows(2_000);
    let compressed = compress(&value).expect("it pays");
    let mut noticed = 0;
    let mut try_read = |bytes: &[u8]| {
        if let Some(length) = length(bytes) {
            assert!(length <= bytes.len() * 255 + 255, "more than a block can stand for");
            let mut into = vec![0; length];
            noticed += u32::from(!decompress(bytes, &mut into));
        }
        for other in [0, value.len() - 1, value.len() + 1] {
            decompress(bytes, &mut vec![0; other]);
        }
    };
    for end in 0..compressed.len() {
        try_read(&compressed[..end]);
    }
    let mut numbers = Numbers(3);
    for at in 0..compressed.len() {
        for byte in [0, 15, 240, 255, compressed[at] ^ 1, numbers.next() as u8] {
            let mut damaged = compressed.clone();
            damaged[at] = byte;
            try_read(&damaged);
        }
    }
    for _ in 0..20_000 {
        let mut damaged = compressed[..numbers.below(compressed.len()) + 1].to_vec();
        for _ in 0..numbers.below(20) {
            let at = numbers.below(damaged.len());
            damaged[at] = numbers.next() as u8;
        }
        try_read(&damaged);
    }
    for _ in 0..20_000 {
        let mut random: Vec<u8> = (0..numbers.below(300)).map(|_| numbers.next() as u8).collect();
        if let Some(head) = random.first_chunk_mut() {
            *head = (numbers.below(4_000) as u32).to_ne_bytes();
        }
        try_read(&random);
    }
    assert!(noticed > 10_000);
}

/// Fails if a value is decompressed into a buffer of another length than the compressed form records, or if bytes that cannot be a
/// compressed form have a length.
#[test]
fn the_room_must_have_the_recorded_length() {
    let compressed = compress(&rows(2_000)).expect("it pays");
    assert_eq!(length(&compressed), Some(2_000));
    for other in [0, 1_999, 2_001] {
        assert!(!decompress(&compressed, &mut vec![0; other]));
    }
    assert_eq!((length(&[]), length(&[1, 0, 0]), length(&[255; 8])), (None, None, None));
}
