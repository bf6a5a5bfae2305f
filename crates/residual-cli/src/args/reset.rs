use std::{fmt::Display, str::FromStr};

/// The value of a flag that also takes a word that unsets it, such as `--samples all`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reset<T>(pub(crate) Option<T>);

impl<T: Clone> Reset<T> {
    /// The value of the flag if it is given, otherwise the known one.
    pub(crate) fn or(flag: Option<&Self>, known: Option<T>) -> Option<T> {
        flag.map_or(known, |flag| flag.0.clone())
    }
}

/// Parses a value, or the word that stands for none.
pub(crate) fn or_word<T>(word: &'static str) -> impl Fn(&str) -> Result<Reset<T>, String> + Clone
where
    T: FromStr,
    T::Err: Display,
{
    move |text| match text.parse() {
        _ if text == word => Ok(Reset(None)),
        Ok(value) => Ok(Reset(Some(value))),
        Err(error) => Err(format!("{error}; `{word}` is possible too")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_resets_what_is_known() {
        let parse = or_word::<usize>("all");
        let resolve = |text: Option<&str>| Reset::or(text.map(|text| parse(text).unwrap()).as_ref(), Some(7));
        assert_eq!([None, Some("3"), Some("all")].map(resolve), [Some(7), Some(3), None]);
        assert_eq!(parse("none").unwrap_err(), "invalid digit found in string; `all` is possible too");
    }
}
