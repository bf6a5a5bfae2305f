//! Verdicts in words.

use crate::{sweep::with_setting, words::percent};
use residual_lab::{Finding, Rise, Verdict};

/// The verdict as one paragraph: `dense nets: shown. Plain nets get worse with depth; … Plain: … Residual: …`
pub fn verdict(verdict: &Verdict) -> String {
    let (answer, reason) = finding(verdict.finding);
    format!("{}: {answer}.{reason} {}", nets(verdict), detail(verdict))
}

/// `dense nets, adam, learning rate 0.001`
pub(crate) fn nets(verdict: &Verdict) -> String {
    with_setting(&format!("{} nets", verdict.family), verdict.setting)
}

/// The answer, and a sentence with the reason, which begins with a space, or is empty if there is no reason.
pub(crate) fn finding(finding: Finding) -> (&'static str, &'static str) {
    match finding {
        Finding::Shown => ("shown", " Plain nets get worse with depth; residual nets do not."),
        Finding::ShownInPart => {
            ("shown in part", " Plain nets get worse with depth; residual nets get worse by less than half as much.")
        }
        Finding::NotShown => ("not shown by these data", ""),
    }
}

/// The rise of the error with depth, for plain and for residual nets.
pub(crate) fn detail(verdict: &Verdict) -> String {
    let seeds = if verdict.seeds == 1 { " With one seed, the spread is unknown." } else { "" };
    format!("Plain: {}. Residual: {}.{seeds}", rise(&verdict.plain), rise(&verdict.residual))
}

fn rise(rise: &Rise) -> String {
    let Rise { best_depth, best, deepest_depth, deepest, std, .. } = *rise;
    if best_depth == deepest_depth {
        return format!("lowest at the greatest depth, {deepest_depth} layers ({})", percent(deepest));
    }
    format!(
        "{} at {best_depth} layers, {} at {deepest_depth} (difference {:.1} ± {:.1} points)",
        percent(best),
        percent(deepest),
        100.0 * rise.difference(),
        100.0 * std,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use residual_lab::{Setting, SweepFamily};

    #[test]
    fn a_verdict_states_the_errors() {
        let plain = Rise { best_depth: 20, best: 0.01, deepest_depth: 56, deepest: 0.5, std: 0.1, significant: true };
        let residual = Rise { best_depth: 56, best: 0.002, deepest: 0.002, std: 0.0, significant: false, ..plain };
        let shown = Verdict {
            family: SweepFamily::Conv,
            setting: Setting::default(),
            finding: Finding::Shown,
            plain,
            residual,
            seeds: 1,
        };
        assert_eq!(
            verdict(&shown),
            "conv nets: shown. Plain nets get worse with depth; residual nets do not. Plain: 1.0 % at 20 layers, 50.0 % at \
             56 (difference 49.0 ± 10.0 points). Residual: lowest at the greatest depth, 56 layers (0.2 %). With one seed, \
             the spread is unknown."
        );
    }
}
