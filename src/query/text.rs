//! The text of a query, divided into tokens as the scanner of PostgreSQL does (`src/backend/parser/scan.l`). The tokens are not
//! parsed. The file is pure Rust, so that tests can use it (`tests/sessions/scanner.rs`).
//!
//! A text is *unclear* if it cannot be divided into tokens with certainty: a string has no end, or `standard_conforming_strings` is
//! off. The normal text is then the text itself, the identifiers are unknown, and the text counts as one that names a moment.

use std::collections::{BTreeSet, TryReserveError};

/// The most identifiers that are collected. If a text has more, its identifiers count as unknown.
const IDENTIFIERS_MAX: usize = 120;

/// The number of bytes of an identifier that PostgreSQL uses (`NAMEDATALEN - 1`).
const IDENTIFIER_BYTES_MAX: usize = 63;

/// The words that are reserved in all supported versions (`RESERVED_KEYWORD` in `kwlist.h`), in the order of their bytes. Without
/// quotes, such a word never names a relation, a column, a function or a type.
const RESERVED: [&[u8]; 77] = [
    b"all",
    b"analyse",
    b"analyze",
    b"and",
    b"any",
    b"array",
    b"as",
    b"asc",
    b"asymmetric",
    b"both",
    b"case",
    b"cast",
    b"check",
    b"collate",
    b"column",
    b"constraint",
    b"create",
    b"current_catalog",
    b"current_date",
    b"current_role",
    b"current_time",
    b"current_timestamp",
    b"current_user",
    b"default",
    b"deferrable",
    b"desc",
    b"distinct",
    b"do",
    b"else",
    b"end",
    b"except",
    b"false",
    b"fetch",
    b"for",
    b"foreign",
    b"from",
    b"grant",
    b"group",
    b"having",
    b"in",
    b"initially",
    b"intersect",
    b"into",
    b"lateral",
    b"leading",
    b"limit",
    b"localtime",
    b"localtimestamp",
    b"not",
    b"null",
    b"offset",
    b"on",
    b"only",
    b"or",
    b"order",
    b"placing",
    b"primary",
    b"references",
    b"returning",
    b"select",
    b"session_user",
    b"some",
    b"symmetric",
    b"table",
    b"then",
    b"to",
    b"trailing",
    b"true",
    b"union",
    b"unique",
    b"user",
    b"using",
    b"variadic",
    b"when",
    b"where",
    b"window",
    b"with",
];

/// The conditions on which the tokens depend besides the text.
#[derive(Clone, Copy, Debug)]
pub struct Lexing {
    /// The setting `standard_conforming_strings`.
    pub standard_strings: bool,
    /// Whether the database's encoding is UTF-8.
    pub utf8: bool,
}

/// The facts that the text of a query shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text without comments and needless white space. Two texts with the same normal text mean the same under the same
    /// settings.
    pub normal: Vec<u8>,
    /// Every identifier in the text, in the form in which PostgreSQL looks it up, including key words that can name an object.
    /// None: not known, or too many.
    pub identifiers: Option<BTreeSet<Vec<u8>>>,
    /// Whether a string literal contains one of the words that read the clock when they become a date ([`names_moment`]).
    pub names_moment: bool,
}

/// Returns the facts that the text of a query shows. Fails if there is no memory for a copy of the text.
pub fn analyse(raw: &[u8], lexing: Lexing) -> Result<Text, TryReserveError> {
    let mut notes =
        Notes { utf8: lexing.utf8, identifiers: Some(BTreeSet::new()), moments: Words::default() };
    let mut normal = with_capacity(raw.len())?;
    if lexing.standard_strings && scan(raw, &mut normal, &mut notes).is_some() {
        return Ok(Text { normal, identifiers: notes.identifiers, names_moment: notes.moments.found });
    }
    normal.clear();
    normal.extend_from_slice(raw);
    Ok(Text { normal, identifiers: None, names_moment: true })
}

/// Returns whether the content of a string contains one of the words now, today, tomorrow and yesterday. PostgreSQL reads the clock
/// when it converts such a string to a date or a time. Anything but an ASCII letter separates words.
pub fn names_moment(literal: &[u8]) -> bool {
    let mut words = Words::default();
    literal.iter().for_each(|byte| words.add(*byte));
    words.end();
    words.found
}

/// Returns an empty vector that can take this many bytes without another allocation.
fn with_capacity(bytes: usize) -> Result<Vec<u8>, TryReserveError> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(bytes)?;
    Ok(vector)
}

/// Finds the words for moments in a stream of bytes.
#[derive(Default)]
struct Words {
    /// The letters of the current word, in lower case. Letters beyond the longest word that is sought are only counted.
    word: [u8; Words::LETTERS_MAX],
    letters: usize,
    found: bool,
}

impl Words {
    /// The length of `yesterday`.
    const LETTERS_MAX: usize = 9;

    fn add(&mut self, byte: u8) {
        if !byte.is_ascii_alphabetic() {
            return self.end();
        }
        if let Some(place) = self.word.get_mut(self.letters) {
            *place = byte.to_ascii_lowercase();
        }
        self.letters += 1;
    }

    /// Ends the current word.
    fn end(&mut self) {
        let word = self.word.get(..self.letters).unwrap_or_default();
        self.found |= matches!(word, b"now" | b"today" | b"tomorrow" | b"yesterday");
        self.letters = 0;
    }
}

/// The facts that are collected while a text is scanned.
struct Notes {
    utf8: bool,
    identifiers: Option<BTreeSet<Vec<u8>>>,
    moments: Words,
}

impl Notes {
    /// Adds an identifier without quotes.
    fn add_bare(&mut self, name: &[u8]) {
        if name.is_ascii() || self.utf8 {
            let mut name = name.to_owned_clipped();
            name.make_ascii_lowercase();
            if RESERVED.binary_search(&name.as_slice()).is_err() {
                self.add(name);
            }
        } else {
            // In some encodings, the server changes the case of letters by the rules of the C library.
            self.identifiers = None;
        }
    }

    /// Adds an identifier in quotes. `inside` is the text between the quotes.
    fn add_quoted(&mut self, inside: &[u8]) {
        let mut name = Vec::new();
        let mut bytes = inside.iter();
        // The loop takes one byte more than the limit, which shows that the name is cut off.
        while let Some(byte) = bytes.next()
            && name.len() <= IDENTIFIER_BYTES_MAX
        {
            name.push(*byte);
            if *byte == b'"' {
                bytes.next();
            }
        }
        if name.len() > IDENTIFIER_BYTES_MAX && !self.utf8 && !name.is_ascii() {
            // A name is cut off between two characters, and only for UTF-8 is it known where characters begin.
            self.identifiers = None;
        } else {
            self.add(name.to_owned_clipped());
        }
    }

    fn add(&mut self, name: Vec<u8>) {
        if let Some(identifiers) = &mut self.identifiers {
            identifiers.insert(name);
            if identifiers.len() > IDENTIFIERS_MAX {
                self.identifiers = None;
            }
        }
    }
}

trait Clipped {
    /// Returns a copy that is cut off where the server cuts off a long identifier: between two characters.
    fn to_owned_clipped(&self) -> Vec<u8>;
}

impl Clipped for [u8] {
    fn to_owned_clipped(&self) -> Vec<u8> {
        let mut end = self.len().min(IDENTIFIER_BYTES_MAX);
        if end < self.len() {
            while end > 0 && self[end] & 0xc0 == 0x80 {
                end -= 1;
            }
        }
        self[..end].to_vec()
    }
}

/// The gap between two tokens.
struct Gap {
    /// The length in bytes. 0: the tokens touch.
    bytes: usize,
    /// Whether two string literals with this gap between them are one literal: the gap has a newline, and no comment in C's style.
    joins: bool,
}

/// Copies a text to its normal form, and notes the facts. `normal` must have room for the whole text. Returns None if the text is
/// unclear; `normal` and `notes` must then not be used.
fn scan(raw: &[u8], normal: &mut Vec<u8>, notes: &mut Notes) -> Option<()> {
    let mut at = gap(raw)?.bytes;
    // The length of the normal text up to the last token that is no semicolon.
    let mut end = 0;
    while let Some(first) = raw.get(at) {
        let rest = &raw[at..];
        let next = rest.get(1).copied();
        let bytes = match (first, next) {
            (b'\'', _) => literal(rest, 0, false, normal, notes)?,
            (b'e' | b'E', Some(b'\'')) => literal(rest, 1, true, normal, notes)?,
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', Some(b'\'')) => literal(rest, 1, false, normal, notes)?,
            (b'u' | b'U', Some(b'&')) if rest.get(2) == Some(&b'\'') => {
                // With UESCAPE, which follows the literal, any character may begin an escape, so the words cannot be read.
                notes.moments.found = true;
                literal(rest, 2, false, normal, notes)?
            }
            (b'u' | b'U', Some(b'&')) if rest.get(2) == Some(&b'"') => {
                notes.identifiers = None;
                copy(rest, 2 + quoted(&rest[2..])?, normal)
            }
            (b'"', _) => {
                let bytes = quoted(rest)?;
                notes.add_quoted(&rest[1..bytes - 1]);
                copy(rest, bytes, normal)
            }
            (b'$', Some(b'0'..=b'9')) => {
                copy(rest, 1 + count(&rest[1..], |byte| byte.is_ascii_digit()), normal)
            }
            (b'$', _) => match dollar_delimiter(rest) {
                Some(delimiter) => {
                    let inside = &rest[delimiter.len()..];
                    let length = inside.windows(delimiter.len()).position(|part| part == delimiter)?;
                    notes.moments.found |= names_moment(&inside[..length]);
                    copy(rest, length + 2 * delimiter.len(), normal)
                }
                None => copy(rest, 1, normal),
            },
            (b'0'..=b'9', _) => copy(rest, number(rest), normal),
            (first, _) if starts_identifier(*first) => {
                let bytes = count(rest, continues_identifier);
                notes.add_bare(&rest[..bytes]);
                copy(rest, bytes, normal)
            }
            // A vertical tab is a space in some versions of PostgreSQL and an error in others. No text contains a zero byte.
            (0x0b | 0, _) => return None,
            // An operator or another character. A comment may begin within an operator, so each character is copied by itself.
            _ => copy(rest, 1, normal),
        };
        if *first != b';' {
            end = normal.len();
        }
        at += bytes;
        let between = gap(&raw[at..])?;
        at += between.bytes;
        if between.bytes > 0 {
            normal.push(b' ');
        }
    }
    normal.truncate(end);
    Some(())
}

/// Copies this many bytes of the rest of a text, and returns the number.
fn copy(rest: &[u8], bytes: usize, normal: &mut Vec<u8>) -> usize {
    normal.extend_from_slice(&rest[..bytes]);
    bytes
}

/// Returns the number of bytes at the beginning for which `holds` is true.
fn count(rest: &[u8], holds: impl Fn(u8) -> bool) -> usize {
    rest.iter().position(|byte| !holds(*byte)).unwrap_or(rest.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn starts_identifier(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_identifier(byte: u8) -> bool {
    starts_identifier(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Returns the white space and comments at the beginning. None if a comment has no end.
fn gap(rest: &[u8]) -> Option<Gap> {
    let (mut bytes, mut newline, mut block) = (0, false, false);
    loop {
        let rest = &rest[bytes..];
        match rest {
            [byte, ..] if is_space(*byte) => {
                newline |= is_newline(*byte);
                bytes += 1;
            }
            [b'-', b'-', ..] => bytes += count(rest, |byte| !is_newline(byte)),
            [b'/', b'*', ..] => {
                block = true;
                bytes += block_comment(rest)?;
            }
            _ => return Some(Gap { bytes, joins: newline && !block }),
        }
    }
}

/// Returns the length of a comment in C's style, which may contain other comments. None if it has no end.
fn block_comment(rest: &[u8]) -> Option<usize> {
    let (mut bytes, mut depth) = (2, 1);
    while depth > 0 {
        bytes += match rest.get(bytes..)? {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            [_, ..] => 1,
            [] => return None,
        };
    }
    Some(bytes)
}

/// Copies a string literal with all its continuations, and returns its length. `prefix` is the number of bytes before the quote.
/// Returns None if the literal has no end.
fn literal(
    rest: &[u8],
    prefix: usize,
    escapes: bool,
    normal: &mut Vec<u8>,
    notes: &mut Notes,
) -> Option<usize> {
    copy(rest, prefix, normal);
    let mut at = prefix;
    loop {
        let start = at;
        at += 1;
        loop {
            match &rest[at..] {
                [b'\'', b'\'', ..] => {
                    notes.moments.end();
                    at += 2;
                }
                [b'\'', ..] => break,
                [b'\\', escaped, ..] if escapes => {
                    notes.moments.end();
                    // An escape with a letter or a digit, other than these five, may stand for a letter of a word.
                    notes.moments.found |= escaped.is_ascii_alphanumeric() && !b"bfnrt".contains(escaped);
                    at += 2;
                }
                [byte, ..] => {
                    notes.moments.add(*byte);
                    at += 1;
                }
                [] => return None,
            }
        }
        at += 1;
        normal.extend_from_slice(&rest[start..at]);
        let between = gap(&rest[at..])?;
        if !between.joins || rest.get(at + between.bytes) != Some(&b'\'') {
            notes.moments.end();
            return Some(at);
        }
        normal.push(b'\n');
        at += between.bytes;
    }
}

/// Returns the length of an identifier in quotes, including the quotes. None if it has no end.
fn quoted(rest: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match rest.get(at..)? {
            [b'"', b'"', ..] => at += 2,
            [b'"', ..] => return Some(at + 1),
            [_, ..] => at += 1,
            [] => return None,
        }
    }
}

/// Returns the delimiter of a string in dollar quotes, such as `$$` or `$tag$`. None if the dollar sign begins no such string.
fn dollar_delimiter(rest: &[u8]) -> Option<&[u8]> {
    let tag = count(&rest[1..], |byte| continues_identifier(byte) && byte != b'$');
    let starts = tag == 0 || starts_identifier(rest[1]);
    (starts && rest.get(1 + tag) == Some(&b'$')).then(|| &rest[..tag + 2])
}

/// Returns the length of a number. Letters after the digits belong to it, because the server refuses a number that an identifier
/// follows without a space. The sign of an exponent does not belong to it, which makes no difference here. Two dots are a token of
/// their own.
fn number(rest: &[u8]) -> usize {
    let is_end = |at: usize| match rest[at] {
        b'.' => rest.get(at + 1) == Some(&b'.'),
        byte => !continues_identifier(byte) || byte == b'$',
    };
    (0..rest.len()).find(|at| is_end(*at)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEXING: Lexing = Lexing { standard_strings: true, utf8: true };

    fn text(raw: &str) -> Text {
        analyse(raw.as_bytes(), LEXING).unwrap()
    }

    fn normal_of(raw: &str) -> String {
        String::from_utf8(text(raw).normal).unwrap()
    }

    fn names(raw: &str) -> Vec<String> {
        let names = text(raw).identifiers.unwrap();
        names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn reserved_words_are_sorted() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn white_space_and_comments_collapse() {
        for (raw, expected) in [
            ("", ""),
            (" ; -- x\n;", ""),
            ("  SELECT\t1 \r\n;; ", "SELECT 1"),
            ("SELECT/* a /* b */ c */1", "SELECT 1"),
            ("SELECT 1 -- rest", "SELECT 1"),
            ("-- first\nSELECT 1", "SELECT 1"),
            ("SELECT 1; SELECT 2;", "SELECT 1; SELECT 2"),
            ("SELECT 1+--x\n2", "SELECT 1+ 2"),
            ("SELECT 2*/* x */3", "SELECT 2* 3"),
            ("SELECT 1/*/* x */ y */", "SELECT 1"),
            ("SELECT a - -1", "SELECT a - -1"),
            ("SELECT a--1", "SELECT a"),
            ("a\n\nb", "a b"),
        ] {
            assert_eq!(normal_of(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn strings_and_quoted_identifiers_keep_their_content() {
        for raw in [
            "'a  /* b */ -- c'",
            "'it''s  '",
            "'back\\'",
            "E'back\\'  -- '",
            "e'\\\\'",
            "b'0  1'",
            "X'f  f'",
            "n'a  b'",
            "U&'\\0041  '",
            "u&\"a  b\"",
            "\"a  \"\"b -- \"",
            "$$a  ' /* $x$ $$",
            "$x$a  $$ $y$ $x  x$ $x$",
            "$\u{e4}$a  b$\u{e4}$",
            "$1",
            "a$b$c",
            "1..E'\\'  '",
        ] {
            assert_eq!(normal_of(raw), raw);
            assert_eq!(normal_of(&format!(" {raw} -- x\n /* y */ , {raw};")), format!("{raw} , {raw}"));
        }
        assert_eq!(normal_of("a$$  b"), "a$$ b");
        assert_eq!(normal_of("1$$  b$$  c"), "1$$  b$$ c");
        assert_eq!(normal_of("_e'a\\'  b"), "_e'a\\' b");
    }

    #[test]
    fn a_newline_between_literals_is_kept() {
        assert_eq!(normal_of("'a' \n  'b'  'c'"), "'a'\n'b' 'c'");
        assert_eq!(normal_of("'a' -- x\n 'b'"), "'a'\n'b'");
        assert_eq!(normal_of("'a' /* x */\n 'b'"), "'a' 'b'");
        assert_eq!(normal_of("'a'\nE'b'"), "'a' E'b'");
        assert_eq!(normal_of("E'a'\n'\\'  b'  c"), "E'a'\n'\\'  b' c");
        assert_eq!(normal_of("'a'\n\"b\""), "'a' \"b\"");
    }

    #[test]
    fn unclear_texts_stay_as_they_are() {
        for raw in [" 'a", " \"a", " $a$ $b$", " /* /* */", " E'\\'", " U&\"a", " a\u{b} b", " E'\\"] {
            let expected = Text { normal: raw.as_bytes().to_vec(), identifiers: None, names_moment: true };
            assert_eq!(text(raw), expected);
        }
        let lexing = Lexing { standard_strings: false, utf8: true };
        assert_eq!(
            analyse(b" a", lexing).unwrap(),
            Text { normal: b" a".to_vec(), identifiers: None, names_moment: true }
        );
    }

    #[test]
    fn identifiers_have_the_form_in_which_the_server_looks_them_up() {
        assert_eq!(
            names("SELECT Foo.\"Bar\"\"x\", foo FROM t1 -- no\n WHERE 'in' = $1 AND 1e5 > c"),
            ["Bar\"x", "c", "foo", "t1"]
        );
        assert_eq!(names("SELECT left(a, 1) FROM \"select\""), ["a", "left", "select"]);
        assert_eq!(names("N'a' || u&b"), ["b", "u"]);
        assert_eq!(names("A\u{c4}"), ["a\u{c4}"]);
        assert_eq!(names(&"A".repeat(70)), ["a".repeat(63)]);
        assert_eq!(names(&format!("a{}", "\u{e4}".repeat(40))), [format!("a{}", "\u{e4}".repeat(31))]);
        assert_eq!(names(&"\u{e4}".repeat(40)), ["\u{e4}".repeat(31)]);
        assert_eq!(names(&format!("\"{}\"", "\"\"".repeat(70))), ["\"".repeat(63)]);
    }

    #[test]
    fn the_list_of_identifiers_is_unknown_if_it_is_long_or_in_doubt() {
        assert_eq!(text("U&\"a\"").identifiers, None);
        let latin = Lexing { standard_strings: true, utf8: false };
        assert_eq!(analyse(b"t\xe4", latin).unwrap().identifiers, None);
        assert!(analyse(b"\"t\xe4\"", latin).unwrap().identifiers.is_some());
        let many = |count| (0..count).map(|number| format!("a{number},")).collect::<String>();
        assert_eq!(text(&many(120)).identifiers.unwrap().len(), 120);
        assert_eq!(text(&many(121)).identifiers, None);
    }

    #[test]
    fn words_for_moments_are_found_in_literals_only() {
        for raw in [
            "'Today'",
            "'x now'",
            "$$tomorrow$$",
            "E'a\\nnow'",
            "'2020-01-01', 'YESTERDAY 10:00'",
            "'to'\n'day'",
            "E'\\164oday'",
            "U&'\\0074oday'",
            "date'now'",
        ] {
            assert!(text(raw).names_moment, "{raw}");
        }
        for raw in [
            "'know'",
            "now()",
            "\"now\"",
            "'nowhere'",
            "'to' 'day'",
            "-- 'now'\n1",
            "E'a\\n'",
            "'epoch'",
            "'yesterdayx'",
        ] {
            assert!(!text(raw).names_moment, "{raw}");
        }
        assert!(names_moment(b"a,NOW"));
        assert!(!names_moment(b"n'ow"));
    }

    /// A generator of numbers (xorshift).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    /// Texts of the same tokens have the same normal text, with any gaps between the tokens, and texts of other tokens have another
    /// one. The seed is printed if the test fails; `TEXT_SEED` sets it.
    #[test]
    fn the_normal_text_depends_on_the_tokens_only() {
        const TOKENS: [&str; 20] = [
            "a",
            "\"a -- \"\" b\"",
            "'it''s  /*'",
            "E'\\'  --'",
            "$$  ' $$",
            "$x$ $y$ -- $x$",
            "U&'  x'",
            "X'f  f'",
            "1e5",
            "1.5",
            "$1",
            "+",
            "-",
            "*",
            "/",
            "<>",
            ",",
            ";",
            "(",
            "u&\"a  b\"",
        ];
        const GAPS: [&str; 7] =
            [" ", "\t \t", "/* x */", " /* /* ' */ \" */ ", "\n", " -- ' \" $$\n", "\r\n/**/"];
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        let seed =
            std::env::var("TEXT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock) | 1;
        println!("TEXT_SEED={seed}");
        let mut numbers = Numbers(seed);
        for _ in 0..20_000 {
            let tokens: Vec<&str> =
                (0..numbers.below(8) + 1).map(|_| TOKENS[numbers.below(TOKENS.len())]).collect();
            let mut spread = |expected: &mut String| {
                let mut text = GAPS[numbers.below(GAPS.len())].repeat(numbers.below(2));
                expected.clear();
                for (at, token) in tokens.iter().enumerate() {
                    let gap: Vec<&str> =
                        (0..numbers.below(3) + 1).map(|_| GAPS[numbers.below(GAPS.len())]).collect();
                    let gap = gap.concat();
                    let literals = |last: &&str| {
                        last.ends_with('\'') && tokens.get(at + 1).is_some_and(|next| next.starts_with('\''))
                    };
                    let joins = literals(token) && gap.contains('\n') && !gap.contains("/*");
                    text += token;
                    text += &gap;
                    *expected += token;
                    *expected += if joins { "\n" } else { " " };
                }
                while expected.ends_with([' ', ';']) {
                    expected.pop();
                }
                text
            };
            let mut expected = String::new();
            let text = spread(&mut expected);
            assert_eq!(normal_of(&text), expected, "{text:?}");
            assert_eq!(normal_of(&expected), expected, "{text:?}");
        }
    }
}
