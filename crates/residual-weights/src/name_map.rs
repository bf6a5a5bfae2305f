use crate::{WeightsError, file::json_reason, pairs::Pairs, ranges::MAX_NAME};
use regex::{Regex, RegexBuilder};
use residual_fetch::read_text;
use std::{borrow::Cow, path::Path};

/// Renames tensors by regular expressions, for checkpoints with other naming schemes.
///
/// The map is a JSON object of patterns and replacements, which are applied one after another in the order of the file.
/// They are applied after prefixes such as `state_dict.` and `module.` have been removed from the names. In a
/// replacement, `$1` stands for the text matched by the first group:
///
/// ```json
/// { "^backbone\\.": "", "^classifier\\.1\\.": "fc.", "^loss\\..*$": "" }
/// ```
///
/// A tensor whose whole name is replaced by an empty one, such as `loss.weight` here, is dropped.
#[derive(Clone, Debug, Default)]
pub struct NameMap(Vec<(Regex, String)>);

/// The longest file in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The largest number of rules.
const MAX_RULES: usize = 1000;
/// The memory in bytes that all compiled patterns may take together, and as much again while they match.
const MAX_COMPILED: usize = 256 << 20;

impl NameMap {
    /// Reads a map from a JSON file of at most 1 MiB.
    ///
    /// # Errors
    /// If the file cannot be read, or for the reasons of [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        Self::parse(&read_text(path, MAX_FILE).map_err(WeightsError::io("read", path))?, path)
    }

    /// Parses a map from JSON. Error messages name `path` as the source.
    ///
    /// # Errors
    /// If `json` is not a JSON object of strings, has more than 1000 rules or a replacement of more than 4096 bytes, or
    /// contains a regular expression that is invalid or too large.
    pub fn parse(json: &str, path: &Path) -> Result<Self, WeightsError> {
        let bad = |reason: String| WeightsError::bad_file(path, reason);
        let json = json.trim_start_matches('\u{feff}');
        let Pairs(rules) = serde_json::from_str(json).map_err(|error| {
            bad(format!("is not a JSON object of patterns and replacements: {}", json_reason(&error)))
        })?;
        if rules.len() > MAX_RULES {
            return Err(bad(format!("has {} rules; expected at most {MAX_RULES}", rules.len())));
        }
        let size = MAX_COMPILED / rules.len().max(25);
        let rule = |(pattern, new): (String, String)| {
            if new.len() > MAX_NAME {
                return Err(bad(format!("has a replacement of {} bytes; expected at most {MAX_NAME}", new.len())));
            }
            match RegexBuilder::new(&pattern).size_limit(size).dfa_size_limit(size).build() {
                Ok(regex) => Ok((regex, new)),
                Err(error) => {
                    let text = error.to_string();
                    let reason = text.lines().last().unwrap_or_default().trim();
                    let reason = reason.strip_prefix("error: ").unwrap_or(reason).to_string();
                    Err(WeightsError::Pattern { path: path.into(), pattern, reason })
                }
            }
        };
        rules.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Renames a tensor. An empty name means that the tensor is dropped.
    ///
    /// # Errors
    /// If a rule makes the name longer than 4096 bytes, which no real name is.
    pub fn apply(&self, name: &str) -> Result<String, WeightsError> {
        self.renamed(name).map(Cow::into_owned)
    }

    pub(crate) fn renamed<'a>(&self, name: &'a str) -> Result<Cow<'a, str>, WeightsError> {
        let mut name = Cow::from(name);
        for (pattern, new) in &self.0 {
            let long = || WeightsError::LongName { pattern: pattern.to_string() };
            let mut renamed = String::new();
            let mut end = 0;
            for captures in pattern.captures_iter(&name) {
                let whole = captures.get_match();
                renamed.push_str(&name[end..whole.start()]);
                captures.expand(new, &mut renamed);
                end = whole.end();
                if renamed.len() > MAX_NAME {
                    return Err(long());
                }
            }
            renamed.push_str(&name[end..]);
            if renamed.len() > MAX_NAME {
                return Err(long());
            }
            name = renamed.into();
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> Result<NameMap, String> {
        NameMap::parse(json, Path::new("map.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_replaced_as_the_library_does() {
        for (pattern, new, name) in
            [("a", "$0$0", "banana"), ("^", "x.", "a"), ("(.)n", "<$1>", "banana"), ("", "-", "ab"), ("z", "", "ab")]
        {
            let expected = Regex::new(pattern).unwrap().replace_all(name, new).into_owned();
            assert_eq!(map(&format!(r#"{{ "{pattern}": "{new}" }}"#)).unwrap().apply(name).unwrap(), expected);
        }
    }

    #[test]
    fn a_rule_cannot_make_a_name_long() {
        let rules = map(&format!(r#"{{ ".": "{}", "(?s).": "x" }}"#, "$0".repeat(2000))).unwrap();
        let error = rules.apply("abc").unwrap_err().to_string();
        assert_eq!(error, "the rule `.` of the name map makes a name longer than 4096 bytes");
        let error = map(&format!(r#"{{ ".": "{}" }}"#, "A".repeat(5000))).unwrap_err();
        assert_eq!(error, "map.json has a replacement of 5000 bytes; expected at most 4096");
    }

    #[test]
    fn the_number_and_the_size_of_patterns_are_bounded() {
        let rules = vec![r#""a": """#; 1001].join(",");
        assert_eq!(map(&format!("{{{rules}}}")).unwrap_err(), "map.json has 1001 rules; expected at most 1000");
        let error = map(r#"{ "((\\w{100}){100}){100}": "" }"#).unwrap_err();
        assert!(error.contains("size limit") && !error.contains('\n'), "{error}");
        let usual = vec![r#""^([a-z]+)\\.conv([0-9]+)\\.": "$1.c$2""#; 1000].join(",");
        assert!(map(&format!("{{{usual}}}")).is_ok());
    }
}
