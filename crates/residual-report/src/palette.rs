//! The colours of networks.

use residual_lab::SubjectInfo;
use residual_model::BlockKind;

/// Colours of the palette by Okabe and Ito (2008), which can be told apart with any form of colour vision.
const PLAIN: [&str; 3] = ["#d55e00", "#e69f00", "#cc79a7"];
const RESIDUAL: [&str; 3] = ["#0072b2", "#56b4e9", "#009e73"];
const BETWEEN: [&str; 4] = ["#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The colour of the network at an index among the networks of its kind.
pub(crate) fn color(kind: BlockKind, index: usize) -> String {
    let colors = match kind {
        BlockKind::Plain => PLAIN,
        BlockKind::Residual => RESIDUAL,
    };
    colors[index % colors.len()].into()
}

/// The colour of a network with a skip strength other than 0 and 1.
pub(crate) fn between(index: usize) -> String {
    BETWEEN[index % BETWEEN.len()].into()
}

/// A shade of the colour of a kind, from light at t = 0 to dark at t = 1.
pub(crate) fn shaded(kind: BlockKind, t: f64) -> String {
    let (light, dark) = match kind {
        BlockKind::Plain => ([0xf4, 0xa9, 0x6a], [0x7a, 0x2a, 0x00]),
        BlockKind::Residual => ([0x86, 0xbd, 0xea], [0x06, 0x33, 0x5c]),
    };
    let mix = |i: usize| (f64::from(light[i]) * (1.0 - t) + f64::from(dark[i]) * t).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// A colour for each network.
pub(crate) fn colors(subjects: &[SubjectInfo]) -> Vec<String> {
    colors_of_kinds(&subjects.iter().map(|subject| subject.kind).collect::<Vec<_>>())
}

/// A colour for each network, given the kinds of all networks.
pub(crate) fn colors_of_kinds(kinds: &[BlockKind]) -> Vec<String> {
    let before = |i: usize| kinds[..i].iter().filter(|kind| **kind == kinds[i]).count();
    (0..kinds.len()).map(|i| color(kinds[i], before(i))).collect()
}
