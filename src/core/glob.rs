//! Patterns over keys, such as `user:42:*`: `*` matches any bytes, `?` matches one character, and `\` makes the next byte literal.
//! Whole sets of keys are invalidated (`patterns/`) and listed by them.
//!
//! Keys are bytes. Where a key holds bytes in the form of a UTF-8 character, `?` matches the whole character, and `*` takes all of
//! its bytes or none. Anywhere else, `?` matches one byte, and `*` any number of bytes.

/// A valid pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glob<'p>(&'p [u8]);

impl<'p> Glob<'p> {
    /// Creates a pattern. Returns `None` if the pattern ends in a `\` with no byte after it.
    pub fn new(pattern: &'p [u8]) -> Option<Self> {
        let escapes = pattern.iter().rev().take_while(|byte| **byte == b'\\').count();
        escapes.is_multiple_of(2).then_some(Self(pattern))
    }

    /// Returns the bytes of the pattern.
    pub fn bytes(self) -> &'p [u8] {
        self.0
    }

    /// Returns whether the pattern matches the whole key. The time is at most proportional to the product of both lengths, because
    /// only the last `*` is ever tried again: it can match everything that an earlier `*` could match instead.
    pub fn matches(self, key: &[u8]) -> bool {
        let mut steps = u32::MAX;
        self.matches_within(key, &mut steps).unwrap_or_default()
    }

    /// Does the same as [`matches`](Self::matches), and subtracts 1 from `steps` for each comparison of a byte. Returns `None` if
    /// there are too few steps.
    pub fn matches_within(self, key: &[u8], steps: &mut u32) -> Option<bool> {
        let (mut pattern, mut rest) = (self.0, key);
        let mut star: Option<(&[u8], &[u8])> = None;
        loop {
            *steps = steps.checked_sub(1)?;
            let advanced = match pattern {
                [b'*', behind @ ..] => {
                    star = Some((behind, rest));
                    pattern = behind;
                    continue;
                }
                [] if rest.is_empty() => return Some(true),
                [b'?', behind @ ..] if !rest.is_empty() => Some((behind, first_character(rest))),
                [b'\\', byte, behind @ ..] => (rest.first() == Some(byte)).then_some((behind, 1)),
                [byte, behind @ ..] if rest.first() == Some(byte) => Some((behind, 1)),
                _ => None,
            };
            match (advanced, star) {
                (Some((behind, taken)), _) => (pattern, rest) = (behind, &rest[taken..]),
                (None, Some((behind, from))) if !from.is_empty() => {
                    let from = &from[first_character(from)..];
                    star = Some((behind, from));
                    (pattern, rest) = (behind, from);
                }
                _ => return Some(false),
            }
        }
    }
}

/// Returns how many bytes the first character has, or 1 if the bytes do not begin with a UTF-8 character. Checks only the form: the
/// first byte, and that enough continuation bytes follow.
fn first_character(bytes: &[u8]) -> usize {
    let length = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    let behind = bytes.get(1..length).unwrap_or_default();
    if behind.len() + 1 == length && behind.iter().all(|byte| byte & 0xc0 == 0x80) { length } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    fn matches(pattern: &str, key: &str) -> bool {
        Glob::new(pattern.as_bytes()).expect("it means something").matches(key.as_bytes())
    }

    /// A `*` matches any number of characters, also none, and a pattern must match the whole key. Fails if the search does not try
    /// a `*` again with more characters.
    #[test]
    fn stars_take_as_much_as_they_need() {
        for pattern in ["*", "**", "a*", "*c", "a*c", "*b*", "a*b*c", "abc", "abc*", "???", "a?*"] {
            assert!(matches(pattern, "abc"), "{pattern}");
        }
        for pattern in ["", "a", "ab", "b*", "*b", "????", "a*d", "abcd", "?"] {
            assert!(!matches(pattern, "abc"), "{pattern}");
        }
        assert!(matches("*aab", "aaaab"), "what was taken too early is given back");
        assert!(matches("match:*:42:*", "match:x:y:42:z:42:"));
        assert!(!matches("match:*:42:*", "match:x:421:"));
    }

    /// A `?` takes a whole UTF-8 character, and one byte of anything else. Fails if it takes one byte of a character, or more than
    /// one byte of other bytes.
    #[test]
    fn characters_are_as_long_as_they_are() {
        assert!(matches("?", "é") && matches("a?c", "a€c") && matches("??", "😀x"));
        assert!(!matches("??", "é"));
        assert!(
            Glob::new(b"a?c").expect("it does").matches(b"a\xffc"),
            "a byte that is not UTF-8 is one character"
        );
        assert!(Glob::new(b"??").expect("it does").matches(b"\xe2\x82"));
    }

    /// A `\` makes the next byte literal, and a pattern that ends in an unpaired `\` is refused. Fails if an escaped `*` or `?`
    /// matches other bytes, or if `\` itself must be in the key.
    #[test]
    fn an_escape_takes_the_meaning_off() {
        assert!(matches(r"\*", "*") && !matches(r"\*", "x"));
        assert!(matches(r"a\?*", "a?b") && !matches(r"a\?*", "axb"));
        assert!(matches(r"\\", r"\") && matches(r"\a", "a"));
        assert!(!matches(r"\*", r"\anything") && !matches(r"\a", r"\a"), "and is no letter itself");
        assert_eq!(Glob::new(br"a\"), None);
        assert_eq!(Glob::new(br"a\\\"), None);
        assert!(Glob::new(br"a\\").is_some());
    }

    /// A comparison takes as many steps as it needs and stops when there are no more.
    #[test]
    fn steps_are_limited() {
        let glob = Glob::new(b"a*b").expect("it means something");
        let mut steps = 100;
        assert_eq!(glob.matches_within(b"a-b", &mut steps), Some(true));
        assert!((90..100).contains(&steps), "{steps}");
        assert_eq!(glob.matches_within(&[b'a'; 1024], &mut steps), None);
    }

    /// The time stays within the product of both lengths. If the search tried every `*` again and not only the last one, this test
    /// would not end.
    #[test]
    fn many_stars_take_no_for_an_answer_soon() {
        let pattern = "a*".repeat(512) + "b";
        assert!(!matches(&pattern, &"a".repeat(1024)));
    }
}
