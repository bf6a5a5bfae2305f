//! Selects the dictionary of a checkpoint that fits a network.

use crate::{
    Checkpoint, Entry, LoadOptions, WeightsError,
    error::{first_few, name_shown},
    load::{has_shape, shapes},
    names::{Naming, canonical, is_batch_counter},
};
use burn::module::Module;
use residual_data::shown;
use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, fmt};

/// The tensors of a checkpoint that belong to one network.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    checkpoint: &'a Checkpoint,
    /// The keys that lead to the dictionary, joined by dots. Empty if the dictionary is the whole file.
    key: String,
    /// The full name of each tensor, by torchvision's name.
    names: BTreeMap<String, &'a str>,
    aside: Vec<(String, usize)>,
}

/// How well the dictionary under a prefix fits a network.
#[derive(Clone, Copy, Default)]
struct Fit {
    /// The number of tensors that the network has.
    known: usize,
    /// The number of these that have the network's shapes.
    shaped: usize,
    unknown: usize,
}

/// Whether the network has the shapes of the wanted weights, or only their names.
#[derive(Clone, Copy, PartialEq)]
enum Shapes {
    Known,
    Unknown,
}

/// The largest number of dictionaries that are compared with the best one. No real file has more copies of a network.
const MAX_EQUALS: usize = 8;

impl Checkpoint {
    /// Selects the dictionary that holds most of the network's tensors, by name and then by shape.
    ///
    /// Among dictionaries that fit equally well, the trained weights come before weights in callbacks or settings, and
    /// these before an average of the weights, whose key has a word such as `ema` or `swa`; then the dictionary with
    /// the fewest other tensors comes first. `options.key` selects another dictionary.
    ///
    /// # Errors
    /// If two dictionaries are equal in all of this but differ in their values, there are no tensors under
    /// `options.key`, or two tensors have the same name after renaming.
    pub fn select<M: Module>(&self, network: &M, options: &LoadOptions) -> Result<Selection<'_>, WeightsError> {
        self.select_with(network, options, Shapes::Known)
    }

    /// Selects the dictionary that holds most of the network's tensors by name alone, as [`Self::select`] does by name
    /// and shape. The network's width, channels and classes need not be those of the weights.
    ///
    /// # Errors
    /// The same as for [`Self::select`]. Dictionaries that differ only in their shapes fit equally well.
    pub fn select_by_name<M: Module>(&self, network: &M, options: &LoadOptions) -> Result<Selection<'_>, WeightsError> {
        self.select_with(network, options, Shapes::Unknown)
    }

    fn select_with<M: Module>(
        &self,
        network: &M,
        options: &LoadOptions,
        known: Shapes,
    ) -> Result<Selection<'_>, WeightsError> {
        let mut wanted = shapes(network);
        wanted.retain(|name, _| !options.ignores(name));
        let fits = self.fits(&wanted, options, known)?;
        if let Some(key) = options.key.as_ref().filter(|_| fits.is_empty()) {
            let all = self.fits(&wanted, &LoadOptions { key: None, ..options.clone() }, known)?;
            let fitting = all.iter().filter(|(_, fit)| 2 * fit.known >= wanted.len());
            let available = fitting.map(|(prefix, _)| prefix.to_string()).collect();
            return Err(WeightsError::Key { path: self.path().into(), key: key.clone(), available });
        }
        let order = |(prefix, fit): &(&str, Fit)| {
            (fit.known, fit.shaped, Reverse(rank(prefix)), Reverse(fit.unknown), Reverse(prefix.len()))
        };
        // The first of equals, because `max_by_key` returns the last one.
        let best = fits.iter().rev().map(|(prefix, fit)| (*prefix, *fit)).max_by_key(order);
        let Some((prefix, best)) = best.filter(|(_, fit)| 2 * fit.known >= wanted.len()) else {
            return self.selection(options.key.as_deref().unwrap_or_else(|| self.outermost()), options);
        };
        let selection = self.selection(prefix, options)?;
        let class = |prefix: &str, fit: Fit| (fit.known, fit.shaped, fit.unknown, rank(prefix));
        let is_apart = |other: &str| !is_under(prefix, Some(other)) && !is_under(other, Some(prefix));
        let equals = fits.iter().filter(|(other, fit)| class(other, **fit) == class(prefix, best) && is_apart(other));
        for (i, (other, _)) in equals.enumerate() {
            if i == MAX_EQUALS || !selection.is_same(&self.selection(other, options)?) {
                let keys = vec![prefix.into(), other.to_string()];
                return Err(WeightsError::Ambiguous { path: self.path().into(), keys });
            }
        }
        Ok(selection)
    }

    /// How well the dictionary under each prefix of a name fits the wanted names, and the shapes if they are known.
    fn fits(
        &self,
        wanted: &BTreeMap<String, Vec<usize>>,
        options: &LoadOptions,
        known: Shapes,
    ) -> Result<BTreeMap<&str, Fit>, WeightsError> {
        let mut fits: BTreeMap<&str, Fit> = BTreeMap::new();
        for (name, entry) in self.tensors() {
            for (prefix, rest) in splits(name).filter(|(prefix, _)| is_under(prefix, options.key.as_deref())) {
                if is_average(rest) {
                    continue;
                }
                let Some(renamed) = renamed(rest, options)? else { continue };
                let name = canonical(&renamed);
                if options.ignores(&name) {
                    continue;
                }
                let fit = fits.entry(prefix).or_default();
                match wanted.get(&name) {
                    Some(shape) => {
                        fit.known += 1;
                        let has_shape = known == Shapes::Known && has_shape(entry, shape, self.format());
                        fit.shaped += usize::from(has_shape);
                    }
                    None => fit.unknown += 1,
                }
            }
        }
        Ok(fits)
    }

    /// All tensors except the batch counters of norms.
    fn tensors(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries().filter(|(name, _)| !is_batch_counter(name))
    }

    /// The tensors under a key.
    fn selection(&self, key: &str, options: &LoadOptions) -> Result<Selection<'_>, WeightsError> {
        let mut translated: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
        let mut aside = BTreeMap::new();
        for (name, _) in self.tensors() {
            let rest = match key {
                "" => Some(name),
                key => name.strip_prefix(key).and_then(|rest| rest.strip_prefix('.')),
            };
            match rest.filter(|rest| !is_average(rest)) {
                Some(rest) => {
                    if let Some(renamed) = renamed(rest, options)? {
                        translated.entry(canonical(&renamed)).or_default().push((rest, name));
                    }
                }
                None => *aside.entry(outside(name, key).to_string()).or_insert(0) += 1,
            }
        }
        let mut names = BTreeMap::new();
        for (canonical, same) in translated {
            // Names that are translated to the same name belong to another kind of network, and are kept as they are.
            let is_translated = same.len() == 1;
            for (rest, name) in same {
                let new = if is_translated { &canonical } else { rest };
                if names.insert(new.to_string(), name).is_some() {
                    let reason = format!("has two tensors named `{}`", shown(new));
                    return Err(WeightsError::bad_file(self.path(), reason));
                }
            }
        }
        // `n_averaged` is the number of steps of an average.
        aside.retain(|name, _| name.rsplit('.').next() != Some("n_averaged"));
        let mut aside: Vec<(String, usize)> = aside.into_iter().collect();
        aside.sort_by_key(|(_, tensors)| Reverse(*tensors));
        Ok(Selection { checkpoint: self, key: key.into(), names, aside })
    }

    /// The dictionary under one of the usual keys of weights, for files in which no dictionary fits.
    fn outermost(&self) -> &str {
        const USUAL: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "module"];
        let mut key = "";
        loop {
            let inside = self.tensors().map(|(name, _)| {
                splits(name)
                    .map(|(prefix, _)| prefix)
                    .find(|prefix| prefix.len() > key.len() && is_under(prefix, Some(key)))
            });
            let usual = inside.flatten().find(|prefix| USUAL.contains(&prefix.rsplit('.').next().unwrap_or_default()));
            match usual {
                Some(inner) => key = inner,
                None => return key,
            }
        }
    }
}

impl Selection<'_> {
    /// The keys that lead to the dictionary, joined by dots. Empty if the dictionary is the whole file.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The tensor with this name in torchvision's naming.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.checkpoint.get(self.names.get(name)?)
    }

    /// The full name of each tensor, by torchvision's name.
    pub(crate) fn names(&self) -> &BTreeMap<String, &str> {
        &self.names
    }

    /// The naming scheme of the tensors.
    pub fn naming(&self) -> Naming {
        let full = self.names.get("conv1.weight").copied().unwrap_or_default();
        Naming::of(full.strip_prefix(&self.key).unwrap_or(full).trim_start_matches('.'))
    }

    /// Dictionaries and single tensors of the file that are not selected, and their numbers of tensors, the largest
    /// first.
    pub fn aside(&self) -> &[(String, usize)] {
        &self.aside
    }

    /// Whether both hold the same tensors under the same names: stored in the same place, or with equal values. Values
    /// are compared up to a total of 64 Mi, or of the bytes of the file; beyond that, tensors count as different.
    fn is_same(&self, other: &Self) -> bool {
        const MAX_COMPARED: usize = 64 << 20;
        let max_compared = MAX_COMPARED.min(usize::try_from(self.checkpoint.held_bytes()).unwrap_or(usize::MAX));
        let mut compared = 0usize;
        let mut same = |ours: &Entry, theirs: &Entry| {
            if ours.is_in_place_of(theirs) {
                return true;
            }
            let elements = ours.shape().iter().fold(1usize, |n, &d| n.saturating_mul(d));
            compared = compared.saturating_add(elements);
            compared <= max_compared && ours.has_values_of(theirs)
        };
        self.names.len() == other.names.len()
            && self.names.keys().all(|name| {
                let pair = self.get(name).zip(other.get(name));
                pair.is_some_and(|(ours, theirs)| same(ours, theirs))
            })
    }
}

/// The dictionary that was read and what was left aside, on one line: `read state_dict (39 tensors); left aside
/// model_ema (39 tensors), best_acc1`.
impl fmt::Display for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors = self.names.len();
        match self.key.as_str() {
            "" => write!(f, "read {tensors} tensors")?,
            key => write!(f, "read {} ({tensors} tensors)", shown(key))?,
        }
        let text = |(name, count): &(String, usize)| match count {
            1 => name_shown(name),
            count => format!("{} ({count} tensors)", name_shown(name)),
        };
        if self.aside.is_empty() { Ok(()) } else { write!(f, "; left aside {}", first_few(&self.aside, text)) }
    }
}

/// The name that the options' map gives a tensor, or `None` if it drops the tensor.
fn renamed<'a>(name: &'a str, options: &LoadOptions) -> Result<Option<Cow<'a, str>>, WeightsError> {
    let renamed = options.names.renamed(name)?;
    Ok((!renamed.is_empty() || name.is_empty()).then_some(renamed))
}

/// All ways to split a name into a dictionary's key and the name in the dictionary, up to a depth of 32.
fn splits(name: &str) -> impl Iterator<Item = (&str, &str)> {
    const MAX_DEPTH: usize = 32;
    let dots = name.match_indices('.').take(MAX_DEPTH);
    std::iter::once(("", name)).chain(dots.map(|(at, _)| (&name[..at], &name[at + 1..])))
}

/// Whether a prefix is this key or lies under it. Without a key, every prefix does.
fn is_under(prefix: &str, key: Option<&str>) -> bool {
    match key {
        None | Some("") => true,
        Some(key) => prefix.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

/// The shortest prefix of a name that is not a prefix of a key.
fn outside<'a>(name: &'a str, key: &str) -> &'a str {
    let same = name.split('.').zip(key.split('.')).take_while(|(ours, theirs)| ours == theirs).count();
    name.match_indices('.').nth(same).map_or(name, |(at, _)| &name[..at])
}

/// The order of dictionaries that fit equally well.
fn rank(prefix: &str) -> usize {
    const SETTINGS: [&str; 5] = ["hyper_parameters", "hparams", "callbacks", "args", "config"];
    match prefix {
        prefix if is_average(prefix) => 2,
        prefix if prefix.split('.').any(|part| SETTINGS.contains(&part)) => 1,
        _ => 0,
    }
}

/// Whether a name has a word for an average of weights, as in `model_ema`, `state_dict_ema` and `swa_model`.
fn is_average(name: &str) -> bool {
    const WORDS: [&[u8]; 6] = [b"ema", b"swa", b"averaged", b"average", b"avg", b"shadow"];
    let mut words = name.as_bytes().split(|byte| matches!(byte, b'.' | b'_' | b'-'));
    words.any(|word| WORDS.iter().any(|average| word.eq_ignore_ascii_case(average)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_every_dot() {
        let all: Vec<(&str, &str)> = splits("a.b.c").collect();
        assert_eq!(all, [("", "a.b.c"), ("a", "b.c"), ("a.b", "c")]);
    }

    #[test]
    fn averages_are_recognised_by_words() {
        for name in ["ema", "model_ema", "state_dict_ema.module", "swa_model", "EMA.x", "averaged-model"] {
            assert!(is_average(name), "{name}");
        }
        for name in ["model", "schema", "avgpool", "state_dict.module"] {
            assert!(!is_average(name), "{name}");
        }
    }

    #[test]
    fn what_is_left_aside_is_named_by_its_dictionary() {
        assert_eq!(outside("optimizer.state.0.momentum_buffer", "state_dict"), "optimizer");
        assert_eq!(outside("state_dict.ema.fc.bias", "state_dict.model"), "state_dict.ema");
        assert_eq!(outside("best_acc1", "state_dict"), "best_acc1");
        assert_eq!(outside("ema.fc.bias", ""), "ema");
    }
}
