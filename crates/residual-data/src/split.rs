//! The split of a folder into training and held-out images, by hashes of their paths.

use crate::{DataError, scan::ImageFile};
use regex::Regex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// The pattern that groups images by their paths within the class folder. A group is on one side of a split.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupBy(Option<Regex>);

impl GroupBy {
    pub(crate) fn new(pattern: Option<&str>) -> Result<Self, DataError> {
        let regex = pattern.map(Regex::new).transpose();
        Ok(Self(regex.map_err(|error| DataError::Setting {
            name: "the pattern of groups",
            expected: "a regular expression".into(),
            value: format!("`{}`: {}", pattern.unwrap_or_default(), last_line(&error.to_string())),
        })?))
    }

    /// Whether there is a pattern and it matches none of these images.
    pub(crate) fn is_idle<'a>(&self, mut files: impl Iterator<Item = &'a ImageFile>) -> bool {
        self.0.as_ref().is_some_and(|regex| !files.any(|file| regex.is_match(&file.name)))
    }

    /// The group of an image: the first capture group of the pattern, or the whole match if there is none. An image
    /// that does not match is a group of its own. Without a pattern, every image is.
    fn key<'a>(&self, file: &'a ImageFile) -> (Option<usize>, &'a str) {
        let captures = self.0.as_ref().and_then(|regex| regex.captures(&file.name));
        match captures.and_then(|found| found.get(1).or(found.get(0))) {
            Some(part) => (None, &file.name[part.range()]),
            None => (Some(file.label), &file.name),
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

/// The first eight bytes of the SHA-256 checksum of a text, as a big-endian number.
fn hash(text: &str) -> u64 {
    let checksum = Sha256::digest(text);
    checksum.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The images that belong together: they are all trained on or all held out.
struct Group {
    hash: u64,
    files: Vec<usize>,
    /// The labels of the files, without repetition.
    classes: Vec<usize>,
    held_out: bool,
}

fn groups(files: &[ImageFile], classes: &[String], by: &GroupBy) -> Vec<Group> {
    let mut index: HashMap<(Option<usize>, &str), usize> = HashMap::with_capacity(files.len());
    let mut groups: Vec<Group> = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let key = by.key(file);
        let at = *index.entry(key).or_insert_with(|| {
            let hash = match key {
                (Some(label), name) => hash(&format!("{}/{name}", classes[label])),
                (None, group) => hash(group),
            };
            groups.push(Group { hash, files: Vec::new(), classes: Vec::new(), held_out: false });
            groups.len() - 1
        });
        groups[at].files.push(i);
        if groups[at].classes.last() != Some(&file.label) {
            groups[at].classes.push(file.label);
        }
    }
    groups
}

/// Holds out about one fifth of the groups: those whose hash is a multiple of five. Returns for each file whether it is
/// held out.
///
/// Two exceptions keep every class in both splits if possible. If all groups of a class would be held out, the one with
/// the largest hash is trained on. If none would be, the one with the smallest hash is held out, among those that leave
/// each of their classes another group to train on.
pub(crate) fn hold_out_fifth(files: &[ImageFile], classes: &[String], by: &GroupBy) -> Vec<bool> {
    let mut groups = groups(files, classes, by);
    groups.iter_mut().for_each(|group| group.held_out = group.hash.is_multiple_of(5));
    let mut of_class = vec![Vec::new(); classes.len()];
    for (i, group) in groups.iter().enumerate() {
        group.classes.iter().for_each(|&class| of_class[class].push(i));
    }
    of_class.iter_mut().for_each(|members| members.sort_by_key(|&i| groups[i].hash));
    for members in &of_class {
        if let Some(&largest) = members.last().filter(|_| members.iter().all(|&i| groups[i].held_out)) {
            groups[largest].held_out = false;
        }
    }
    let mut trained: Vec<usize> =
        of_class.iter().map(|members| members.iter().filter(|&&i| !groups[i].held_out).count()).collect();
    for members in &of_class {
        if members.iter().any(|&i| groups[i].held_out) {
            continue;
        }
        let can_go = |&&i: &&usize| groups[i].classes.iter().all(|&class| trained[class] > 1);
        if let Some(&smallest) = members.iter().find(can_go) {
            groups[smallest].held_out = true;
            groups[smallest].classes.iter().for_each(|&class| trained[class] -= 1);
        }
    }
    marks(files.len(), groups.iter())
}

/// Holds out whole groups until at least `count` files are held out: about the same share of each class, and within a
/// class the groups with the smallest hashes. Returns for each file whether it is held out.
pub(crate) fn hold_out(files: &[ImageFile], classes: &[String], count: usize, by: &GroupBy) -> Vec<bool> {
    let mut groups = groups(files, classes, by);
    groups.sort_by_key(|group| (group.hash, group.files[0]));
    let class = |group: &Group| group.classes[0];
    let mut sizes = vec![0; classes.len()];
    groups.iter().for_each(|group| sizes[class(group)] += group.files.len());
    // Where the middle of each group lies in its class, as a fraction.
    let mut before = vec![0; classes.len()];
    let mut place = |group: &Group| {
        let (start, files) = (before[class(group)], group.files.len());
        before[class(group)] += files;
        (start as f64 + files as f64 / 2.0) / sizes[class(group)] as f64
    };
    let mut placed: Vec<(f64, Group)> = groups.into_iter().map(|group| (place(&group), group)).collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut held_out = 0;
    for (_, group) in &mut placed {
        group.held_out = held_out < count;
        held_out += group.files.len();
    }
    marks(files.len(), placed.iter().map(|(_, group)| group))
}

fn marks<'a>(files: usize, groups: impl Iterator<Item = &'a Group>) -> Vec<bool> {
    let mut marks = vec![false; files];
    for group in groups.filter(|group| group.held_out) {
        group.files.iter().for_each(|&i| marks[i] = true);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(usize, &str)]) -> Vec<ImageFile> {
        names.iter().map(|&(label, name)| ImageFile { path: name.into(), label, name: name.into() }).collect()
    }

    fn classes(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class{class}")).collect()
    }

    /// `int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")` in Python.
    #[test]
    fn the_hash_is_that_of_sha_256() {
        assert_eq!(hash("abc"), 0xba78_16bf_8f01_cfea);
        assert_eq!(hash(""), 0xe3b0_c442_98fc_1c14);
    }

    #[test]
    fn a_fifth_is_held_out_and_a_new_file_moves_no_other() {
        let names: Vec<String> = (0..1000).map(|i| format!("{i}.png")).collect();
        let of = |names: &[String]| files(&names.iter().map(|name| (0, &**name)).collect::<Vec<_>>());
        let (all, fewer) = (of(&names), of(&names[1..]));
        let marks = hold_out_fifth(&all, &classes(1), &GroupBy::default());
        let count = marks.iter().filter(|held_out| **held_out).count();
        assert!((150..250).contains(&count), "{count}");
        assert_eq!(hold_out_fifth(&fewer, &classes(1), &GroupBy::default()), marks[1..]);
        for (file, held_out) in all.iter().zip(marks) {
            assert_eq!(held_out, hash(&format!("class0/{}", file.name)).is_multiple_of(5));
        }
    }

    #[test]
    fn every_class_with_two_images_is_trained_on_and_tested() {
        for seed in 0..200 {
            let names: Vec<(usize, String)> = [(0, 1), (1, 2), (2, 3)]
                .iter()
                .flat_map(|&(c, n)| (0..n).map(move |i| (c, format!("{seed}-{i}"))))
                .collect();
            let all = files(&names.iter().map(|(class, name)| (*class, &**name)).collect::<Vec<_>>());
            let marks = hold_out_fifth(&all, &classes(3), &GroupBy::default());
            let held = |class| all.iter().zip(&marks).filter(|(file, held)| file.label == class && **held).count();
            assert_eq!(held(0), 0);
            assert!((1..2).contains(&held(1)) && (1..3).contains(&held(2)), "{seed}: {marks:?}");
        }
    }

    #[test]
    fn images_of_a_group_stay_together_across_classes() {
        let names: Vec<(usize, String)> =
            (0..2).flat_map(|class| (0..120).map(move |i| (class, format!("scene{}/frame{i}.png", i / 10)))).collect();
        let all = files(&names.iter().map(|(class, name)| (*class, &**name)).collect::<Vec<_>>());
        for pattern in ["(scene\\d+)/", "scene\\d+"] {
            let by = GroupBy::new(Some(pattern)).unwrap();
            for marks in [hold_out_fifth(&all, &classes(2), &by), hold_out(&all, &classes(2), 30, &by)] {
                let mut scenes: HashMap<&str, bool> = HashMap::new();
                for (file, held_out) in all.iter().zip(&marks) {
                    let scene = file.name.split('/').next().unwrap();
                    assert_eq!(scenes.entry(scene).or_insert(*held_out), held_out, "{}", file.name);
                }
                assert!(scenes.values().any(|held_out| *held_out) && scenes.values().any(|held_out| !held_out));
            }
        }
        let error = GroupBy::new(Some("(")).unwrap_err().to_string();
        assert!(error.starts_with("the pattern of groups must be a regular expression, not `(`: unclosed"), "{error}");
    }

    /// Classes often have the same file names. Their images are held out independently.
    #[test]
    fn classes_with_the_same_file_names_are_split_differently() {
        let names: Vec<(usize, String)> =
            (0..3).flat_map(|class| (0..100).map(move |i| (class, format!("{i:03}.png")))).collect();
        let all = files(&names.iter().map(|(class, name)| (*class, &**name)).collect::<Vec<_>>());
        let marks = hold_out_fifth(&all, &classes(3), &GroupBy::default());
        assert!(marks[..100] != marks[100..200] && marks[100..200] != marks[200..]);
        let count = marks.iter().filter(|held_out| **held_out).count();
        assert!((40..80).contains(&count), "{count}");
    }

    #[test]
    fn a_given_number_is_held_out_in_proportion_to_the_classes() {
        let names: Vec<(usize, String)> =
            [(0, 30), (1, 10)].iter().flat_map(|&(class, n)| (0..n).map(move |i| (class, i.to_string()))).collect();
        let all = files(&names.iter().map(|(class, name)| (*class, &**name)).collect::<Vec<_>>());
        let hash_of = |i: &usize| hash(&format!("class{}/{}", all[*i].label, all[*i].name));
        for (count, each) in [(0, [0, 0]), (4, [3, 1]), (8, [6, 2]), (40, [30, 10])] {
            let marks = hold_out(&all, &classes(2), count, &GroupBy::default());
            for (class, number) in each.into_iter().enumerate() {
                let mut members: Vec<usize> = (0..all.len()).filter(|&i| all[i].label == class).collect();
                members.sort_by_key(hash_of);
                assert!(members[..number].iter().all(|&i| marks[i]) && members[number..].iter().all(|&i| !marks[i]));
            }
        }
    }
}
