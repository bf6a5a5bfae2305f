//! Numbers and names in sentences.

use residual_lab::SubjectInfo;
use residual_train::shown;

/// `1 seed`, `3 seeds`
pub(crate) fn counted(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// `a, b and c`
pub(crate) fn listed(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    match &words[..] {
        [] => String::new(),
        [word] => word.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Text for Markdown, in which it cannot begin a link, a tag or a cell of a table.
pub(crate) fn markdown(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if ['|', '<', '[', '`', '\\'].contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A fraction as `12.3 %`.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// Capitalises the first letter, unless the text begins with a name such as `resnet20`.
pub(crate) fn capital(text: &str) -> String {
    if text.split([' ', ',']).next().is_some_and(|word| word.contains(|c: char| c.is_ascii_digit() || c == '_')) {
        return text.into();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Names as they are shown, each followed by its position if it occurs more than once: `resnet20 (1)`.
pub(crate) fn numbered(names: &[String]) -> Vec<String> {
    let label = |(i, name): (usize, &String)| match names.iter().filter(|other| *other == name).count() {
        1 => shown(name),
        _ => format!("{} ({})", shown(name), i + 1),
    };
    names.iter().enumerate().map(label).collect()
}

/// The names of networks, numbered as by [`numbered`].
pub(crate) fn labels(subjects: &[SubjectInfo]) -> Vec<String> {
    numbered(&subjects.iter().map(|subject| subject.name.clone()).collect::<Vec<_>>())
}

/// `plain56 and resnet56 on digits, seed 0, trained for 10 epochs`. If the states differ, each network is followed by
/// its own.
pub(crate) fn described(subjects: &[SubjectInfo]) -> String {
    let same = subjects.windows(2).all(|pair| pair[0].state() == pair[1].state());
    match subjects.first() {
        Some(first) if same => {
            format!("{} {}", listed(subjects.iter().map(|subject| shown(&subject.name))), first.state())
        }
        _ => subjects.iter().map(SubjectInfo::to_string).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_labels_read_as_english() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(listed(words(&["a", "b", "c"])), "a, b and c");
        assert_eq!(listed(words(&["a"])), "a");
        assert_eq!(numbered(&words(&["a", "b", "a"])), ["a (1)", "b", "a (3)"]);
        assert_eq!(markdown("a|b <img> [c](d)"), "a\\|b \\<img> \\[c](d)");
        assert_eq!((counted(1, "seed"), counted(2, "seed")), ("1 seed".into(), "2 seeds".into()));
        assert_eq!((capital("dense nets"), capital("resnet20, x")), ("Dense nets".into(), "resnet20, x".into()));
    }
}
