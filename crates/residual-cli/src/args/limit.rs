use std::{fmt::Display, str::FromStr};

/// A value, or the word `none`, which removes a value that a recipe or a configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit<T> {
    /// `none`
    None,
    Some(T),
}

impl<T> From<Limit<T>> for Option<T> {
    fn from(limit: Limit<T>) -> Self {
        match limit {
            Limit::None => None,
            Limit::Some(value) => Some(value),
        }
    }
}

impl<T> FromStr for Limit<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::Some).map_err(|error| format!("{error}; expected a number or none")),
        }
    }
}

/// The value of a flag if it is given, else the current value.
pub(crate) fn override_with<T: Clone>(flag: Option<&Limit<T>>, current: Option<T>) -> Option<T> {
    flag.map_or(current, |limit| limit.clone().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_removes_a_value() {
        let flag = |text: &str| text.parse::<Limit<usize>>();
        assert_eq!(override_with(Some(&flag("none").unwrap()), Some(3)), None);
        assert_eq!(override_with(Some(&flag("5").unwrap()), Some(3)), Some(5));
        assert_eq!(override_with(None, Some(3)), Some(3));
        assert_eq!(flag("x").unwrap_err(), "invalid digit found in string; expected a number or none");
    }
}
