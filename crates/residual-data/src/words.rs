//! Words for errors and notes.

use crate::tree::nfc;
use std::{borrow::Cow, path::Path};

/// Text from a file or a name of one, as messages and tables show it: control characters, and characters that change
/// the direction of text, are escaped as in Rust (`\u{1b}`), and all but the first 120 characters are replaced by `…`.
/// So it can neither control a terminal nor look like a line of the program.
#[must_use]
pub fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut characters = text.chars();
    let mut shown = escape(characters.by_ref().take(MOST));
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A text of several lines in which the characters that [`shown`] escapes are escaped, except for line breaks and tabs.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_layout = |character| matches!(character, '\n' | '\t');
    if !text.contains(|character| is_unprintable(character) && !is_layout(character)) {
        return text.into();
    }
    let mut printable = String::new();
    for character in text.chars() {
        if is_layout(character) { printable.push(character) } else { printable += &escape([character].into_iter()) }
    }
    printable.into()
}

/// A path, as messages show it: whole, but escaped as in [`shown`].
#[must_use]
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Text that is known to be short, escaped as in [`shown`].
#[must_use]
pub fn escaped(text: &str) -> String {
    escape(text.chars())
}

fn escape(characters: impl Iterator<Item = char>) -> String {
    let mut escaped = String::new();
    for character in characters {
        if is_unprintable(character) {
            escaped.extend(character.escape_debug());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Control characters, line and paragraph separators, and the controls of bidirectional text.
fn is_unprintable(character: char) -> bool {
    let bidirectional = ['\u{61c}', '\u{200e}', '\u{200f}'];
    character.is_control()
        || bidirectional.contains(&character)
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number and a noun: `1 file`, `2 files`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Names in a sentence: `a`, `a and b`, `a, b and c`, or the first few and how many more.
pub(crate) fn listed(names: impl IntoIterator<Item = String>) -> String {
    const MOST: usize = 5;
    let mut names: Vec<String> = names.into_iter().collect();
    if names.len() > MOST {
        let more = names.len() - MOST + 1;
        names.truncate(MOST - 1);
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The last part of a folder's path, or the path itself if it has none, as messages show it.
pub(crate) fn display_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
    absolute.file_name().map_or_else(|| shown_path(dir), |name| shown(&nfc(&name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_cannot_control_a_terminal() {
        assert_eq!(shown("łódź 猫"), "łódź 猫");
        assert_eq!(shown("a\u{1b}[2J\r\nerror: \u{9b}b\u{202e}c"), "a\\u{1b}[2J\\r\\nerror: \\u{9b}b\\u{202e}c");
        assert_eq!(printable("a\tb\nc\u{1b}[31m\r"), "a\tb\nc\\u{1b}[31m\\r");
        assert_eq!(shown(&"é".repeat(120)), "é".repeat(120));
        assert_eq!(shown(&"é".repeat(121)), "é".repeat(120) + "…");
        assert_eq!(shown_path(Path::new(&"a\n".repeat(121))), "a\\n".repeat(121));
    }

    #[test]
    fn names_are_listed_in_a_sentence() {
        let of = |names: &str| listed(names.split_whitespace().map(String::from));
        assert_eq!(
            ["a", "a b", "a b c", "a b c d e f g"].map(of),
            ["a", "a and b", "a, b and c", "a, b, c, d and 3 more"]
        );
    }
}
