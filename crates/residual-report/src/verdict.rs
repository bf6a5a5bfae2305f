//! Verdicts in words.

use crate::{sweep::with_setting, words::percent};
use residual_lab::{Fall, Finding, Rise, SweepFamily, Verdict};

/// The verdict as one paragraph: `dense nets: shown. Plain nets get worse with depth; … Plain: … Residual: …`
pub fn verdict(verdict: &Verdict) -> String {
    let (answer, reason) = finding(verdict);
    format!("{}: {answer}.{reason} {}", nets(verdict), detail(verdict))
}

/// How far the effect holds across the settings of each family with several: `Across settings, dense nets: shown with sgd,
/// learning rate 0.02; not shown with adam, learning rate 0.003.`
pub(crate) fn across(verdicts: &[Verdict]) -> Vec<String> {
    let mut families: Vec<SweepFamily> = verdicts.iter().map(|verdict| verdict.family).collect();
    families.dedup();
    let sentence = |family: SweepFamily| {
        let own: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.family == family).collect();
        let found = |finding: Finding, words: &str| {
            let with = own.iter().filter(|verdict| verdict.finding == finding);
            let settings: Vec<String> = with.map(|verdict| verdict.setting.to_string()).collect();
            (!settings.is_empty()).then(|| format!("{words} with {}", settings.join("; ")))
        };
        let parts = [
            found(Finding::Shown, "shown"),
            found(Finding::ShownInPart, "shown in part"),
            found(Finding::NotShown, "not shown"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (own.len() > 1).then(|| format!("Across settings, {family} nets: {}.", parts.join("; ")))
    };
    families.into_iter().filter_map(sentence).collect()
}

/// `dense nets, adam, learning rate 0.001`
pub(crate) fn nets(verdict: &Verdict) -> String {
    with_setting(&format!("{} nets", verdict.family), verdict.setting)
}

/// The answer, and a sentence with the reason, which begins with a space, or is empty if there is no reason.
pub(crate) fn finding(verdict: &Verdict) -> (String, &'static str) {
    let seeds = match verdict.seeds {
        1 => " for one seed",
        2 => " for two seeds",
        _ => "",
    };
    match verdict.finding {
        Finding::Shown => (format!("shown{seeds}"), " Plain nets get worse with depth; residual nets do not."),
        Finding::ShownInPart => (
            format!("shown in part{seeds}"),
            " Plain nets get worse with depth; residual nets get worse by less than half as much.",
        ),
        Finding::NotShown => ("not shown by these data".into(), ""),
    }
}

/// How the error changes with depth, for plain and for residual nets, and what the number of seeds allows to say.
pub(crate) fn detail(verdict: &Verdict) -> String {
    let fall = match verdict.fall {
        Fall::Seen { depth, error } => {
            format!(" The plain nets' error falls first, from {} at {depth} layers.", percent(error))
        }
        Fall::TooLow { depth, error } => format!(
            " Whether the plain nets' error falls first cannot be seen: at {depth} layers, it is already {}.",
            percent(error)
        ),
        Fall::NotSeen => " The plain nets' error does not fall first.".into(),
    };
    let seeds = match verdict.seeds {
        1 => " One seed shows what can happen, not how often: the spread between seeds is unknown.".into(),
        2 => " Two seeds are too few for a test at 5 %; three are enough.".into(),
        n => format!(" {n} seeds; p: exact permutation test."),
    };
    format!("Plain: {}. Residual: {}.{fall}{seeds}", rise(&verdict.plain), rise(&verdict.residual))
}

fn rise(rise: &Rise) -> String {
    let Rise { best_depth, best, deepest_depth, deepest, half_width, p, .. } = *rise;
    if best_depth == deepest_depth {
        return format!("lowest at the greatest depth, {deepest_depth} layers ({})", percent(deepest));
    }
    let difference = format!("difference {:.1}", 100.0 * rise.difference());
    let interval = half_width.map(|half| format!(" ± {:.1}", 100.0 * half)).unwrap_or_default();
    let p = p.map(|p| format!(", p {}", short(p))).unwrap_or_default();
    format!(
        "{} at {best_depth} layers, {} at {deepest_depth} ({difference}{interval} points{p})",
        percent(best),
        percent(deepest),
    )
}

/// A p-value to three decimals.
fn short(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".into()
    } else {
        format!("= {}", format!("{p:.3}").trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_lab::Setting;

    #[test]
    fn a_verdict_states_the_errors_and_what_the_seeds_allow_to_say() {
        let plain = Rise {
            best_depth: 20,
            best: 0.01,
            deepest_depth: 56,
            deepest: 0.5,
            half_width: Some(0.1),
            p: Some(0.05),
            rises: true,
        };
        let residual = Rise {
            best_depth: 56,
            best: 0.002,
            deepest: 0.002,
            half_width: Some(0.0),
            p: Some(1.0),
            rises: false,
            ..plain
        };
        let (family, setting) = (SweepFamily::Conv, Setting::default());
        let fall = Fall::Seen { depth: 8, error: 0.03 };
        let shown = Verdict { family, setting, finding: Finding::Shown, fall, plain, residual, seeds: 3 };
        assert_eq!(
            verdict(&shown),
            "conv nets: shown. Plain nets get worse with depth; residual nets do not. Plain: 1.0 % at 20 layers, 50.0 % at \
             56 (difference 49.0 ± 10.0 points, p = 0.05). Residual: lowest at the greatest depth, 56 layers (0.2 %). The \
             plain nets' error falls first, from 3.0 % at 8 layers. 3 seeds; p: exact permutation test."
        );
        let with = |lr: f64, finding| {
            let setting = Setting { lr: Some(lr), ..setting };
            Verdict { setting, finding, ..shown.clone() }
        };
        let several = [with(0.1, Finding::Shown), with(0.3, Finding::NotShown), with(0.01, Finding::Shown)];
        assert_eq!(
            across(&several),
            [
                "Across settings, conv nets: shown with learning rate 0.1; learning rate 0.01; not shown with learning rate 0.3."
            ]
        );
        assert!(across(&several[..1]).is_empty());
        assert_eq!([1.0, 0.05, 0.125, 0.0001].map(short), ["= 1", "= 0.05", "= 0.125", "< 0.001"]);
        let fall = Fall::TooLow { depth: 8, error: 0.0 };
        let plain = Rise { half_width: None, p: None, ..plain };
        let one = verdict(&Verdict { fall, plain, seeds: 1, ..shown });
        assert!(
            one.starts_with("conv nets: shown for one seed. ") && one.contains("(difference 49.0 points)"),
            "{one}"
        );
        assert!(one.ends_with(
            "already 0.0 %. One seed shows what can happen, not how often: the spread between seeds is unknown."
        ));
    }
}
