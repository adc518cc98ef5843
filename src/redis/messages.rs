//! The messages that are published on channels of Redis when keys change, for programs that keep copies of the values: JSON with
//! two lists of Redis keys, `set` and `removed`.

use serde_json::json;

/// How many keys one message names at most under `set`, and under `removed`.
const MOST_KEYS: usize = 1000;

/// Returns the messages about these keys. JSON is UTF-8, so bytes of a key that are not are replaced by U+FFFD.
pub fn messages(set: &[&[u8]], removed: &[&[u8]]) -> Vec<String> {
    let count = set.len().max(removed.len()).div_ceil(MOST_KEYS);
    let part = |keys: &[&[u8]], number: usize| {
        let keys = keys.iter().skip(number * MOST_KEYS).take(MOST_KEYS);
        keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
    };
    (0..count)
        .map(|number| json!({ "set": part(set, number), "removed": part(removed, number) }).to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a key is missing, is named twice, or makes the JSON invalid, or if a message names more keys than the limit.
    #[test]
    fn messages_name_each_key_once() {
        assert_eq!(messages(&[], &[]), [""; 0]);
        assert_eq!(
            messages(&[b"a\"\n", "😀".as_bytes()], &[b"\xff"]),
            [r#"{"removed":["�"],"set":["a\"\n","😀"]}"#]
        );
        let keys: Vec<Vec<u8>> = (0..2500).map(|n| n.to_string().into_bytes()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let texts = messages(&keys, &keys[..1001]);
        let counts: Vec<_> = texts
            .iter()
            .map(|text| {
                let message: serde_json::Value = serde_json::from_str(text).expect("JSON");
                let count = |name: &str| message[name].as_array().expect("a list").len();
                (count("set"), count("removed"))
            })
            .collect();
        assert_eq!(counts, [(1000, 1000), (1000, 1), (500, 0)]);
    }
}
