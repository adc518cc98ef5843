//! Paragraphs and list items of the report, wrapped at 110 characters. The tests are in `markdown.rs`.

/// Returns a paragraph, wrapped.
pub fn paragraph(text: &str) -> String {
    wrapped(text, "", "")
}

/// Returns a list item, wrapped.
pub fn bullet(text: &str) -> String {
    wrapped(text, "- ", "  ")
}

/// Breaks lines at blanks, so that the text is also readable in a terminal. The first line begins with `first`, all others with
/// `others`. A word that is longer than a line has a line of its own.
fn wrapped(text: &str, first: &str, others: &str) -> String {
    /// The most characters of a line.
    const WIDTH: usize = 110;
    let mut lines = vec![first.to_owned()];
    // Whether the present line has no word yet.
    let mut bare = true;
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !bare && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{others}{word}"));
            continue;
        }
        if !bare {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    lines.join("\n") + "\n"
}
