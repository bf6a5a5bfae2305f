/// An axis of a panel: its range, its ticks and its scale.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<f64>,
    pub(crate) scale: Scale,
}

/// Whether equal distances along an axis are equal differences or equal factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scale {
    #[default]
    Linear,
    Log,
}

impl Axis {
    /// From 0 to at least `max`, with about five round ticks.
    pub(crate) fn from_zero(label: &str, max: f64) -> Self {
        let max = if has_ticks(max) { max } else { 1.0 };
        let step = round_step(max, 5.0);
        let count = (max / step - 1e-9).ceil() as usize;
        let ticks: Vec<f64> = (0..=count).map(|i| i as f64 * step).collect();
        Self { label: label.into(), range: (0.0, count as f64 * step), ticks, scale: Scale::Linear }
    }

    /// From 0 to exactly `max`, with round ticks.
    pub(crate) fn until(label: &str, max: f64) -> Self {
        let mut axis = Self::from_zero(label, max);
        if has_ticks(max) {
            axis.range.1 = max;
            axis.ticks.retain(|&tick| tick <= max);
        }
        axis
    }

    /// From a round number at `min` or below to one at `max` or above, with about five round ticks.
    pub(crate) fn covering(label: &str, min: f64, max: f64) -> Self {
        let (min, max) = match max - min {
            // A range far smaller than its ends has no distinct ticks.
            length if has_ticks(length) && length > 1e-9 * min.abs().max(max.abs()) => (min, max),
            _ if has_ticks(min.abs()) => (min - 0.1 * min.abs(), min + 0.1 * min.abs()),
            _ => (0.0, 1.0),
        };
        let step = round_step(max - min, 5.0);
        let (first, last) = ((min / step + 1e-9).floor(), (max / step - 1e-9).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { label: label.into(), range: (first * step, last * step), ticks, scale: Scale::Linear }
    }

    /// A logarithmic axis from 1, 2 or 5 times a power of ten at `min` or below to one at `max` or above. Ticks are at
    /// powers of ten, or at 1, 2 and 5 times powers of ten if fewer than two powers lie in the range.
    pub(crate) fn log(label: &str, min: f64, max: f64) -> Self {
        let max = if max > 0.0 && max.is_finite() { max } else { 1.0 };
        let min = if min > 0.0 && min <= max { min } else { max / 1e3 };
        let (low, high) = (min.log10().floor() as i32 - 1, max.log10().ceil() as i32 + 1);
        let steps: Vec<f64> = (low..=high).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * power_of_ten(power))).collect();
        let from = steps.iter().rev().find(|&&s| s <= min * (1.0 + 1e-9)).copied().unwrap_or(min);
        let to = steps.iter().find(|&&s| s >= max * (1.0 - 1e-9) && s > from).copied().unwrap_or(10.0 * from);
        let within = |tick: &f64| (from * (1.0 - 1e-9)..=to * (1.0 + 1e-9)).contains(tick);
        let decades: Vec<f64> = (low..=high).map(power_of_ten).filter(within).collect();
        let ticks = match decades.len() {
            0..=1 => steps.into_iter().filter(within).collect(),
            n => decades.into_iter().step_by(n.div_ceil(8)).collect(),
        };
        Self { label: label.into(), range: (from, to), ticks, scale: Scale::Log }
    }

    /// The position of a value along the axis, from 0 to 1 within the range, or `None` if it has none, such as 0 on a
    /// logarithmic axis.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let along = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        };
        let (from, to) = (along(self.range.0), along(self.range.1));
        let place = (along(value) - from) / (to - from);
        place.is_finite().then_some(place)
    }

    /// A label for each tick.
    pub(super) fn tick_labels(&self) -> Vec<String> {
        let largest = self.ticks.iter().fold(0.0f64, |a, t| a.max(t.abs()));
        let smallest = self.ticks.windows(2).map(|w| (w[1] - w[0]).abs()).fold(largest, f64::min);
        let decimals = if smallest > 0.0 { (1.0 - smallest.log10().floor()).clamp(0.0, 9.0) as usize } else { 3 };
        let label = |&tick: &f64| match self.scale {
            _ if tick == 0.0 => "0".into(),
            Scale::Log if !(0.01..1e5).contains(&tick) => scientific(tick, 2),
            Scale::Log => significant(tick),
            Scale::Linear if !(0.01..1e6).contains(&largest) => scientific(tick, 2),
            Scale::Linear => trimmed(&format!("{tick:.decimals$}")),
        };
        let minus = |text: String| text.strip_prefix('-').map(|rest| format!("−{rest}")).unwrap_or(text);
        self.ticks.iter().map(label).map(minus).collect()
    }
}

/// The smallest and the largest of the values that a logarithmic axis can show: those that are finite and positive.
pub(crate) fn positive_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let shown = values.filter(|value| value.is_finite() && *value > 0.0);
    let (least, most) = shown.fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), value| (a.min(value), b.max(value)));
    (least.min(most), most)
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that fits into the length at most `times` times.
pub(super) fn round_step(length: f64, times: f64) -> f64 {
    let magnitude = 10f64.powf((length / times).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|s| length / s <= times + 1e-9);
    step.unwrap_or(length / times)
}

/// Whether a length is positive, and neither so small nor so large that the distance of its ticks has no exact value.
pub(super) fn has_ticks(length: f64) -> bool {
    (1e-290..1e290).contains(&length)
}

fn power_of_ten(power: i32) -> f64 {
    // Unlike `powi`, parsing rounds correctly.
    format!("1e{power}").parse().unwrap_or(0.0)
}

/// A number with four significant digits, without trailing zeros.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".into() } else { value.to_string() };
    }
    if !(1e-3..1e6).contains(&value.abs()) {
        return scientific(value, 2);
    }
    let decimals = (3.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    trimmed(&format!("{value:.decimals$}"))
}

/// `1.5e-3`
fn scientific(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$e}");
    match text.split_once('e') {
        Some((mantissa, power)) => format!("{}e{power}", trimmed(mantissa)),
        None => text,
    }
}

fn trimmed(text: &str) -> String {
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    if trimmed == "-0" { "0".into() } else { trimmed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        let ticks = |max| Axis::from_zero("", max).ticks;
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(91.3), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(2.4), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(Axis::from_zero("", 0.0).range, (0.0, 1.0));
        let ticks = |min, max| Axis::covering("", min, max).ticks;
        assert_eq!(ticks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(ticks(-7.0, -2.5), [-7.0, -6.0, -5.0, -4.0, -3.0, -2.0]);
        let (from, to) = Axis::covering("", 3.0, 3.0).range;
        assert!(from < 3.0 && 3.0 < to);
        assert_eq!(Axis::covering("", f64::NAN, 1.0).range, (0.0, 1.0));
    }

    #[test]
    fn no_range_has_many_ticks() {
        let small = f64::from_bits(1);
        let ends = [0.0, small, f64::MIN_POSITIVE, 1e-290, 1.0, 1.0f64.next_up(), 1e16, 1e290, f64::MAX, f64::INFINITY];
        let ends = ends.into_iter().flat_map(|end| [end, -end]).chain([f64::NAN]).collect::<Vec<f64>>();
        for &max in &ends {
            for &min in &ends {
                let axes = [Axis::covering("", min, max), Axis::log("", min, max), Axis::from_zero("", max)];
                for axis in axes.into_iter().chain([Axis::until("", max)]) {
                    assert!(axis.ticks.len() <= 12, "{min} {max}: {axis:?}");
                    axis.tick_labels();
                }
            }
        }
    }

    #[test]
    fn a_log_axis_has_ticks_at_decades_or_closer() {
        let axis = Axis::log("", 0.0012, 3e6);
        assert_eq!(axis.range, (1e-3, 5e6));
        assert_eq!(axis.ticks.len(), 5);
        let ticks = |min, max| Axis::log("", min, max).ticks;
        assert_eq!(ticks(0.3, 150.0), [1.0, 10.0, 100.0]);
        assert_eq!(ticks(2.2, 4.0), [2.0, 5.0]);
        assert_eq!(ticks(1.0, 1.0), [1.0, 2.0]);
        assert!(Axis::log("", 0.0, f64::NAN).ticks.len() > 1);
        assert!(Axis::log("", 1e-300, 1e300).ticks.len() <= 8);
        let labels = |min, max| Axis::log("", min, max).tick_labels();
        assert_eq!(labels(1e-3, 10.0), ["1e-3", "0.01", "0.1", "1", "10"]);
        assert_eq!(labels(1e4, 1e6), ["10000", "1e5", "1e6"]);
        assert_eq!(axis.place(1e-3), Some(0.0));
        assert_eq!(axis.place(0.0), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 56.0, 76.527, -0.25, 1_234_567.0, 0.00012, 12345.6].map(significant),
            ["0", "56", "76.53", "-0.25", "1.23e6", "1.2e-4", "12346"]
        );
        assert_eq!(Axis::from_zero("", 0.004).tick_labels()[1], "1e-3");
        assert_eq!(Axis::from_zero("", 2.4).tick_labels(), ["0", "0.5", "1", "1.5", "2", "2.5"]);
        assert_eq!(Axis::covering("", -1.0, 1.0).tick_labels(), ["−1", "−0.5", "0", "0.5", "1"]);
    }
}
