//! Paragraphs and list items of the report, wrapped.

/// Returns a paragraph, wrapped.
pub fn paragraph(text: &str) -> String {
    wrapped(text, "", "")
}

/// Returns a list item, wrapped.
pub fn bullet(text: &str) -> String {
    wrapped(text, "- ", "  ")
}

/// Breaks lines between words, so that the text is also readable in a terminal.
fn wrapped(text: &str, first: &str, others: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = vec![first.to_owned()];
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
