//! Numbers and names in sentences.

use residual_lab::{SubjectInfo, is_equal_error};
use residual_model::{BlockKind, Family};
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

/// How well networks were trained, by their training errors: which hardly trained, which trained worse than their residual
/// twin, and which trained as well as it. `None` if no training error is known.
pub(crate) fn training(subjects: &[SubjectInfo]) -> Option<String> {
    let labels = labels(subjects);
    let subjects = subjects.iter().zip(&labels);
    let trained: Vec<Trained<'_>> =
        subjects.filter_map(|(subject, label)| Some(Trained { subject, label, error: subject.train_error? })).collect();
    let (mut sentences, mut equal) = (Vec::new(), Vec::new());
    for net in &trained {
        let (label, error) = (net.label, percent(net.error));
        let twin = trained.iter().find(|other| net.is_plain_twin_of(other));
        match twin {
            Some(twin) if is_equal_error(net.error, twin.error) => {
                equal.push(format!("{label} and {} ({error} and {})", twin.label, percent(twin.error)));
            }
            _ if net.hardly() => {
                let twins = twin.map(|twin| format!(", that of {} {}", twin.label, percent(twin.error)));
                sentences.push(format!(
                    "{label} hardly trained: its training error is {error}{}.",
                    twins.unwrap_or_default()
                ));
            }
            Some(twin) => sentences.push(format!(
                "{label} and {} have different training errors ({error} and {}).",
                twin.label,
                percent(twin.error)
            )),
            None => {}
        }
    }
    if !equal.is_empty() {
        sentences.push(format!("Plain and residual nets with about equal training errors: {}.", equal.join(", ")));
    }
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// A network with its training error.
struct Trained<'a> {
    subject: &'a SubjectInfo,
    label: &'a str,
    error: f64,
}

impl Trained<'_> {
    /// Whether the training error is more than half of that of guessing.
    fn hardly(&self) -> bool {
        self.error > 0.5 * (1.0 - 1.0 / self.subject.classes as f64)
    }

    /// Whether this is the plain net of the same depth as a residual net.
    fn is_plain_twin_of(&self, other: &Self) -> bool {
        fn key(subject: &SubjectInfo) -> (Family, usize, &str, u64) {
            (subject.family, subject.depth, &subject.data, subject.seed)
        }
        let kinds = (self.subject.kind, other.subject.kind);
        kinds == (BlockKind::Plain, BlockKind::Residual) && key(self.subject) == key(other.subject)
    }
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
    fn networks_that_hardly_trained_and_those_that_trained_equally_well_are_named() {
        let net = |kind, depth: usize, error| SubjectInfo {
            name: format!("{}{depth}", if kind == BlockKind::Plain { "plain" } else { "resnet" }),
            family: Family::Conv,
            kind,
            depth,
            blocks: 3,
            classes: 10,
            data: "digits".into(),
            seed: 0,
            epochs: Some(7),
            weights: None,
            train_error: error,
        };
        let twins = |depth, plain, residual| {
            [net(BlockKind::Plain, depth, Some(plain)), net(BlockKind::Residual, depth, Some(residual))]
        };
        let nets = [twins(56, 0.7, 0.0), twins(20, 0.01, 0.005), twins(32, 0.2, 0.01)].concat();
        assert_eq!(
            training(&nets).unwrap(),
            "plain56 hardly trained: its training error is 70.0 %, that of resnet56 0.0 %. plain32 and resnet32 have \
             different training errors (20.0 % and 1.0 %). Plain and residual nets with about equal training errors: plain20 \
             and resnet20 (1.0 % and 0.5 %)."
        );
        let alone = "plain56 hardly trained: its training error is 70.0 %.";
        assert_eq!(training(&nets[..1]).unwrap(), alone);
        // Nets of different depths are no twins.
        assert_eq!(training(&[nets[0].clone(), nets[3].clone()]).unwrap(), alone);
        assert_eq!(training(&[net(BlockKind::Plain, 56, None)]), None);
    }

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
