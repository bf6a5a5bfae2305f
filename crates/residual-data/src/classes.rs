use crate::{Augmentation, DataError, Source, shown};
use rand::rngs::ChaCha8Rng;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The names of classes in a text, one per line, without the spaces around them. A byte order mark, Windows line endings
/// and empty lines at the end are left out.
pub fn class_list(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.trim_end().lines().map(|line| line.trim().to_string()).collect()
}

/// For each class of a dataset, the index of the network's class with the same name.
///
/// The network may have classes that the dataset lacks.
///
/// # Errors
/// If the network has no class with the name of one of the dataset's classes.
pub fn match_classes(data: &[String], network: &[String]) -> Result<Vec<usize>, DataError> {
    let index: HashMap<&str, usize> = network.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let unknown: Vec<&str> = data.iter().map(String::as_str).filter(|name| !index.contains_key(name)).collect();
    if unknown.is_empty() {
        return Ok(data.iter().map(|name| index[name.as_str()]).collect());
    }
    let known: HashSet<&String> = data.iter().collect();
    let unmatched = network.iter().filter(|name| !known.contains(name)).map(String::as_str);
    Err(DataError::UnknownClasses { unknown: few(unknown.into_iter()), unmatched: few(unmatched) })
}

/// The first few names of a list, and the number of names left out.
fn few<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.collect();
    let first: Vec<String> = names.iter().take(SHOWN).map(|name| shown(name)).collect();
    match names.len() {
        0 => "none".into(),
        n if n > SHOWN => format!("{} and {} more", first.join(", "), n - SHOWN),
        _ => first.join(", "),
    }
}

/// A source whose labels are those of a network.
pub struct Relabeled {
    source: Arc<dyn Source>,
    labels: Vec<usize>,
    classes: Vec<String>,
}

impl Relabeled {
    /// The samples of `source`. Their labels are indices into the network's `classes`, which are matched by name.
    ///
    /// # Errors
    /// If the source does not know the names of its classes, or one of them is not among the network's classes.
    pub fn new(source: Arc<dyn Source>, classes: Vec<String>) -> Result<Self, DataError> {
        let names = source.class_names().ok_or(DataError::UnnamedClasses)?;
        Ok(Self { labels: match_classes(&names, &classes)?, source, classes })
    }
}

impl Source for Relabeled {
    fn shape(&self) -> [usize; 3] {
        self.source.shape()
    }

    fn classes(&self) -> usize {
        self.classes.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(self.classes.clone())
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn name(&self, index: usize) -> Option<String> {
        self.source.name(index)
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
        self.source.read(index, pixels).map(|label| self.labels[label])
    }

    fn read_augmented(
        &self,
        index: usize,
        augmentation: &Augmentation,
        rng: &mut ChaCha8Rng,
        pixels: &mut [f32],
    ) -> Result<usize, DataError> {
        self.source.read_augmented(index, augmentation, rng, pixels).map(|label| self.labels[label])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_of_names_are_read_with_any_line_ending() {
        assert_eq!(class_list("\u{feff}sea \r\n\r\nhigh grass\n\n"), ["sea", "", "high grass"]);
        assert!(class_list("").is_empty());
    }

    #[test]
    fn classes_are_matched_by_name() {
        let network = names(&["berry", "grass", "sea"]);
        assert_eq!(match_classes(&names(&["grass", "sea"]), &network).unwrap(), [1, 2]);
        assert_eq!(match_classes(&names(&["sea", "grass", "berry"]), &network).unwrap(), [2, 1, 0]);
        let error = match_classes(&names(&["gras", "sea"]), &network).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the network does not know these classes of the dataset: gras; classes of the network without a match: \
             berry, grass"
        );
    }

    #[test]
    fn labels_are_those_of_the_network() {
        struct Sea;
        impl Source for Sea {
            fn shape(&self) -> [usize; 3] {
                [1, 1, 1]
            }
            fn classes(&self) -> usize {
                1
            }
            fn class_names(&self) -> Option<Vec<String>> {
                Some(names(&["sea"]))
            }
            fn len(&self) -> usize {
                1
            }
            fn read(&self, _: usize, _: &mut [f32]) -> Result<usize, DataError> {
                Ok(0)
            }
        }
        let relabeled = Relabeled::new(Arc::new(Sea), names(&["berry", "sea"])).unwrap();
        assert_eq!((relabeled.classes(), relabeled.read(0, &mut [0.0]).unwrap()), (2, 1));
        let digits = crate::Images::new([1, 1, 1], 2, vec![0.0], vec![0]).unwrap();
        assert!(matches!(Relabeled::new(Arc::new(digits), names(&["a"])), Err(DataError::UnnamedClasses)));
    }
}
