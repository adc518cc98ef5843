//! Hides the user and the password of URLs in texts that others may see, such as the answer to SHOW.

use std::borrow::Cow;

/// Replaces user and password by `***` in any text that contains `scheme://…@`. A text after the URL that contains an `@` is hidden
/// too, because a password may contain any character.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(colon) = rest.find("://") {
        let (before, secret) = rest.split_at(colon + 3);
        // A further URL is masked by itself.
        let end = next_url(secret).unwrap_or(secret.len());
        masked.push_str(before);
        match secret[..end].rfind('@') {
            Some(at) => {
                masked.push_str("***");
                masked.push_str(&secret[at..end]);
            }
            None => masked.push_str(&secret[..end]),
        }
        rest = &secret[end..];
    }
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

/// Returns where the next URL begins: at a scheme behind a space or a quotation mark.
fn next_url(text: &str) -> Option<usize> {
    let is_delimiter = |character: char| character.is_whitespace() || "\"'`(".contains(character);
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let scheme_end = from + found;
        let scheme = text[..scheme_end].rfind(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        if let Some(at) = scheme
            && text[at..].chars().next().is_some_and(is_delimiter)
        {
            return Some(at);
        }
        from = scheme_end + 3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::mask;

    /// Fails if a part of a user or a password is still readable, or if a URL without secrets changes.
    #[test]
    fn user_and_password_are_hidden() {
        for (text, masked) in [
            ("redis://user:secret@host:1/2", "redis://***@host:1/2"),
            ("redis://:secret@host", "redis://***@host"),
            ("redis://user@host", "redis://***@host"),
            ("redis://host:6379", "redis://host:6379"),
            ("unix:///a/b", "unix:///a/b"),
            ("rediss+cluster://u:p%40q@a:1,b:2", "rediss+cluster://***@a:1,b:2"),
            ("redis://u:p@ss/w#o?rd@host", "redis://***@host"),
            ("redis://u:p://q@host", "redis://***@host"),
            ("redis://u:my secret@host", "redis://***@host"),
            (
                "cannot reach \"redis://a:b@x\", nor 'redis://c:d@y' now",
                "cannot reach \"redis://***@x\", nor 'redis://***@y' now",
            ),
            ("redis://a:b@x\nredis://c:d@y", "redis://***@x\nredis://***@y"),
            ("", ""),
            ("no URL, but an a@b", "no URL, but an a@b"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
