use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::{fmt::Display, str::FromStr};
use strum::VariantNames;

/// Parses a library's enum by its `FromStr`. `--help` and clap's errors list the enum's words.
pub(crate) fn words<T>() -> impl TypedValueParser<Value = T>
where
    T: VariantNames + FromStr + Clone + Send + Sync + 'static,
    T::Err: Display,
{
    PossibleValuesParser::new(T::VARIANTS).try_map(|word| word.parse::<T>().map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_data::{DataName, Normalize};
    use residual_model::{BranchScale, Kernels, Norm, Stem};
    use residual_train::{AdjustLr, DecayKind, Evaluate, OnNan, OptimizerKind, Recipe};

    #[test]
    fn every_listed_word_parses() {
        fn check<T: VariantNames + FromStr>() {
            for word in T::VARIANTS {
                assert!(word.parse::<T>().is_ok(), "{word}");
            }
        }
        check::<DataName>();
        check::<Normalize>();
        check::<BranchScale>();
        check::<Kernels>();
        check::<Norm>();
        check::<Stem>();
        check::<DecayKind>();
        check::<Evaluate>();
        check::<OnNan>();
        check::<Recipe>();
        check::<OptimizerKind>();
        check::<AdjustLr>();
    }
}
