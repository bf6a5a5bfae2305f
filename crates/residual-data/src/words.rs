//! Words for errors and notes.

use crate::tree::nfc;
use std::path::Path;

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

/// The last part of a folder's path, or the path itself if it has none.
pub(crate) fn display_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
    nfc(&absolute.file_name().map_or(dir.display().to_string(), |name| name.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_in_a_sentence() {
        let of = |names: &str| listed(names.split_whitespace().map(String::from));
        assert_eq!(
            ["a", "a b", "a b c", "a b c d e f g"].map(of),
            ["a", "a and b", "a, b and c", "a, b, c, d and 3 more"]
        );
    }
}
