use crate::{
    DataError, Dataset, Source,
    hash::Hasher,
    threads::start_threads,
    words::{listed, shown},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A summary of a dataset, by which a resumed training notices that its data changed.
///
/// It covers the classes and the samples of both splits, in order. For images in memory it covers the labels and the
/// pixels; for files, the class, the path within the class folder and the size. It does not depend on the location of a
/// folder or on the Unicode normalization form of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The names of the classes, or their numbers if they have no names.
    pub classes: Vec<String>,
    /// The number of training samples.
    pub train: usize,
    /// The number of held-out samples.
    pub test: usize,
    /// A hash of all samples, in hexadecimal digits.
    pub digest: String,
}

impl Fingerprint {
    pub(crate) fn of(dataset: &Dataset) -> Result<Self, DataError> {
        let Dataset { train, test, .. } = dataset;
        let classes: Vec<String> =
            train.class_names().unwrap_or_else(|| (0..train.classes()).map(|class| class.to_string()).collect());
        let mut hasher = Hasher::default();
        classes.iter().for_each(|class| hasher.write(class.as_bytes()));
        for source in [train, test] {
            hasher.write(&identities(&**source)?);
        }
        Ok(Self { classes, train: train.len(), test: test.len(), digest: format!("{:016x}", hasher.finish()) })
    }

    /// The differences between this fingerprint and the present one, phrased to follow the words `the dataset
    /// changed:`. `None` if there are none.
    pub fn changes(&self, now: &Self) -> Option<String> {
        if self == now {
            return None;
        }
        let mut changes = Vec::new();
        let missing = |from: &Self, other: &Self| -> Vec<String> {
            let known: std::collections::HashSet<_> = other.classes.iter().collect();
            from.classes.iter().filter(|class| !known.contains(class)).cloned().collect()
        };
        for (names, what) in [(missing(self, now), "gone"), (missing(now, self), "new")] {
            let (classes, are) = if names.len() == 1 { ("class", "is") } else { ("classes", "are") };
            if !names.is_empty() {
                changes.push(format!("{classes} {} {are} {what}", listed(names.iter().map(|name| shown(name)))));
            }
        }
        if changes.is_empty() && self.classes != now.classes {
            changes.push("the classes are in another order".into());
        }
        for (before, now, split) in [(self.train, now.train, "training"), (self.test, now.test, "held-out")] {
            let (number, more) = (before.abs_diff(now), if now > before { "more" } else { "fewer" });
            if number > 0 {
                changes.push(format!("{number} {split} {} {more}", if number == 1 { "sample" } else { "samples" }));
            }
        }
        if changes.is_empty() {
            changes.push("samples were replaced, renamed or changed in size".into());
        }
        Some(changes.join(", "))
    }
}

/// The identities of all samples, one after the other.
fn identities(source: &dyn Source) -> Result<Vec<u8>, DataError> {
    start_threads()?;
    let identities: Result<Vec<u64>, DataError> =
        (0..source.len()).into_par_iter().map(|i| source.identity(i)).collect();
    Ok(identities?.into_iter().flat_map(u64::to_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataConfig, DataName, Images};
    use image::GrayImage;
    use std::{fs, path::Path};

    fn folder(dir: &Path, classes: &[&str], images: usize) {
        for class in classes {
            fs::create_dir_all(dir.join(class)).unwrap();
            (0..images).for_each(|i| GrayImage::new(4, 4).save(dir.join(class).join(format!("{i}.png"))).unwrap());
        }
    }

    fn fingerprint(dir: &Path) -> Fingerprint {
        let config = DataConfig { dir: Some(dir.into()), side: Some(4), ..DataName::Folder.into() };
        config.load().unwrap().fingerprint().unwrap()
    }

    #[test]
    fn a_moved_folder_is_the_same_and_changes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        folder(&here, &["a", "b", "c"], 10);
        folder(&there, &["a", "b", "c"], 10);
        let before = fingerprint(&here);
        assert_eq!(before, fingerprint(&there));
        assert_eq!((&before.classes[..], before.train + before.test), (&["a", "b", "c"].map(String::from)[..], 30));
        assert_eq!(before.changes(&fingerprint(&there)), None);

        let changes = || before.changes(&fingerprint(&there)).unwrap();
        fs::write(there.join("b/3.png"), "another size").unwrap();
        assert_eq!(changes(), "samples were replaced, renamed or changed in size");
        fs::remove_dir_all(there.join("a")).unwrap();
        folder(&there, &["b"], 10);
        folder(&there, &["d", "e"], 5);
        assert!(changes().starts_with("class a is gone, classes d and e are new"), "{}", changes());
        fs::remove_dir_all(there.join("d")).unwrap();
        fs::remove_dir_all(there.join("e")).unwrap();
        folder(&there, &["a"], 9);
        let changed = changes();
        assert!(["1 training sample fewer", "1 held-out sample fewer"].contains(&&*changed), "{changed}");
    }

    #[test]
    fn labels_and_pixels_in_memory_count() {
        let of = |pixels: [u8; 4], labels: [u16; 4], class: &str| {
            let images = Images::from_bytes([1, 1, 1], 2, pixels.into(), labels.into()).unwrap();
            let images = images.with_class_names([class, "z"]);
            Dataset::standardized(images.clone(), images).fingerprint().unwrap()
        };
        let before = of([0, 9, 7, 8], [0, 1, 1, 0], "y");
        assert_eq!(before, of([0, 9, 7, 8], [0, 1, 1, 0], "y"));
        for other in [of([0, 9, 8, 7], [0, 1, 1, 0], "y"), of([0, 9, 7, 8], [0, 1, 0, 0], "y")] {
            assert_eq!(before.changes(&other).unwrap(), "samples were replaced, renamed or changed in size");
        }
        let renamed = before.changes(&of([0, 9, 7, 8], [0, 1, 1, 0], "x")).unwrap();
        assert_eq!(renamed, "class y is gone, class x is new");
        let json = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), before);
    }
}
