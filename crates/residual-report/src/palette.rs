//! Colours of networks.

use residual_lab::SubjectInfo;
use residual_model::BlockKind;

/// The palette of Okabe and Ito (2008), whose colours differ with any colour vision.
const PLAIN: [&str; 3] = ["#d55e00", "#e69f00", "#cc79a7"];
const RESIDUAL: [&str; 3] = ["#0072b2", "#56b4e9", "#009e73"];
const BETWEEN: [&str; 4] = ["#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The colour of the index-th network of a kind.
pub(crate) fn color(kind: BlockKind, index: usize) -> String {
    let colors = match kind {
        BlockKind::Plain => PLAIN,
        BlockKind::Residual => RESIDUAL,
    };
    colors[index % colors.len()].into()
}

/// The colour of networks with a skip strength other than 0 and 1.
pub(crate) fn between(index: usize) -> String {
    BETWEEN[index % BETWEEN.len()].into()
}

/// A shade of the kind's colour, from light at 0 to dark at 1.
pub(crate) fn shaded(kind: BlockKind, t: f64) -> String {
    let (light, dark) = match kind {
        BlockKind::Plain => ([0xf4, 0xa9, 0x6a], [0x7a, 0x2a, 0x00]),
        BlockKind::Residual => ([0x86, 0xbd, 0xea], [0x06, 0x33, 0x5c]),
    };
    let mix = |i: usize| (f64::from(light[i]) * (1.0 - t) + f64::from(dark[i]) * t).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// A colour for each network, by its kind.
pub(crate) fn colors(subjects: &[SubjectInfo]) -> Vec<String> {
    let before = |i: usize| subjects[..i].iter().filter(|other| other.kind == subjects[i].kind).count();
    (0..subjects.len()).map(|i| color(subjects[i].kind, before(i))).collect()
}
