//! Which folders are splits, and which are classes.

use crate::{
    tree::Tree,
    words::{count, listed, shown, shown_path},
};

/// The names of a training split.
pub(crate) const TRAIN: [&str; 2] = ["train", "training"];
/// The names of a held-out split, in order of preference.
const HELD_OUT: [&str; 4] = ["val", "valid", "validation", "test"];

/// The roles of the subfolders of a folder.
///
/// A subfolder is a split if it is named like one, regardless of case, contains folders with images, and contains no
/// image itself. If there is a training split, its subfolders are the classes. Otherwise the classes are the subfolders
/// of the folder itself, except its splits.
pub(crate) struct Layout<'a> {
    pub(crate) train: Option<&'a Tree>,
    pub(crate) held_out: Option<&'a Tree>,
    /// The class folders to train on.
    pub(crate) classes: Vec<&'a Tree>,
    /// Folders with images that are not used.
    aside: Vec<&'a Tree>,
}

impl<'a> Layout<'a> {
    pub(crate) fn of(root: &'a Tree) -> Self {
        let rank = |folder: &Tree, names: &[&str]| {
            let holds_classes = folder.images.is_empty() && folder.has_images();
            names.iter().position(|name| holds_classes && is_named(folder, &[name]))
        };
        let best =
            |names: &[&str]| root.folders.iter().filter(|f| rank(f, names).is_some()).min_by_key(|f| rank(f, names));
        let (train, mut held_out) = (best(&TRAIN), best(&HELD_OUT));
        let is_split = |folder: &&Tree| rank(folder, &TRAIN).or(rank(folder, &HELD_OUT)).is_some();
        let mut classes: Vec<&Tree> = match train {
            Some(train) => train.folders.iter().collect(),
            None => root.folders.iter().filter(|folder| !is_split(folder)).collect(),
        };
        if train.is_none() && !classes.iter().any(|class| class.has_images()) {
            // Without images to train on beside it, a folder named like a held-out split is a class.
            (held_out, classes) = (None, root.folders.iter().collect());
        }
        let used = |folder: &&Tree| {
            let is = |other: &&Tree| std::ptr::eq(*other, *folder);
            train.as_ref().is_some_and(is) || held_out.as_ref().is_some_and(is) || classes.iter().any(is)
        };
        let aside = root.folders.iter().filter(|folder| folder.has_images() && !used(folder)).collect();
        Self { train, held_out, classes, aside }
    }

    /// The only subfolder with images, if it contains several folders of images: the user then gave the folder above
    /// the dataset.
    pub(crate) fn only_folder(&self, root: &'a Tree) -> Option<&'a Tree> {
        let mut with_images = self.classes.iter().filter(|class| class.has_images());
        let (Some(only), None) = (with_images.next(), with_images.next()) else { return None };
        let inner = inner(only);
        let several = inner.folders.iter().filter(|folder| folder.has_images()).count() > 1;
        let alone = self.train.is_none() && self.held_out.is_none() && root.images.is_empty();
        (alone && several && inner.images.is_empty()).then_some(inner)
    }

    /// Two classes whose folders of images have the same names, as those of two splits do.
    fn twins(&self) -> Option<(&'a Tree, &'a Tree)> {
        let inside = |class: &Tree| -> Vec<String> {
            let class = inner(class);
            let folders = class.folders.iter().filter(|folder| class.images.is_empty() && folder.has_images());
            folders.map(|folder| folder.name.clone()).collect()
        };
        let holding: Vec<(&Tree, Vec<String>)> = self.classes.iter().map(|&class| (class, inside(class))).collect();
        holding.iter().enumerate().find_map(|(i, (class, names))| {
            let twin = holding[..i].iter().find(|(_, others)| names.len() > 1 && others == names)?;
            Some((twin.0, *class))
        })
    }

    pub(crate) fn notes(&self, root: &Tree) -> Vec<String> {
        let names = |folders: &[&Tree]| listed(folders.iter().map(|folder| shown(&folder.name)));
        let mut notes = Vec::new();
        let aside = match &self.aside[..] {
            [] => String::new(),
            [only] => format!("; ignoring {} (to use it alone, give {})", shown(&only.name), shown_path(&only.path)),
            folders => format!("; ignoring {}", names(folders)),
        };
        match (self.train, self.held_out) {
            (Some(train), Some(held_out)) => notes.push(format!(
                "using {} as the training split and {} as the held-out split{aside}",
                shown(&train.name),
                shown(&held_out.name)
            )),
            (Some(train), None) => {
                let why = match self.aside.iter().find(|folder| is_named(folder, &HELD_OUT)) {
                    Some(folder) => format!("{} holds no class folders", shown(&folder.name)),
                    None => "no folder beside it is named val, valid, validation or test".into(),
                };
                notes.push(format!("taking both splits from {}, because {why}{aside}", shown(&train.name)));
            }
            (None, Some(held_out)) => notes.push(format!(
                "using {} as the held-out split and the other folders as the classes{aside}",
                shown(&held_out.name)
            )),
            (None, None) => {}
        }
        let parent = self.train.unwrap_or(root);
        let stray = parent.images.len();
        if stray > 0 {
            notes.push(format!("left out {} outside the class folders", count(stray, "image")));
        }
        if let Some((first, second)) = self.twins() {
            notes.push(format!(
                "the classes {} and {} hold folders of the same names; if they are splits, name them train and val",
                shown(&first.name),
                shown(&second.name)
            ));
        }
        for class in self.classes.iter().filter(|class| is_named(class, &TRAIN) || is_named(class, &HELD_OUT)) {
            let name = shown(&class.name);
            notes.push(format!("treating {name} as a class, not a split, because it contains images directly"));
        }
        notes
    }
}

/// Follows folders that contain only one other folder and no images, as many archives do, to the innermost one.
fn inner(folder: &Tree) -> &Tree {
    match &folder.folders[..] {
        [only] if folder.images.is_empty() && only.images.is_empty() => inner(only),
        _ => folder,
    }
}

/// Whether a folder has one of these names, regardless of case.
pub(crate) fn is_named(folder: &Tree, names: &[&str]) -> bool {
    names.contains(&&*folder.name.to_lowercase())
}
