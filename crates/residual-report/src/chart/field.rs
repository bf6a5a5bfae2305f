use super::{
    GREY, INK, Plot,
    axis::{Axis, Scale, has_ticks, round_step, significant},
    escape, text,
};
use std::fmt::Write;

/// Values on a grid, drawn as colours with contour lines.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The coordinates of the columns, in ascending order.
    pub(crate) xs: Vec<f64>,
    /// The coordinates of the rows, in ascending order.
    pub(crate) ys: Vec<f64>,
    /// The values, row by row. NaN and infinite values are drawn in grey.
    pub(crate) values: Vec<f64>,
    /// The values drawn in the first and in the last colour.
    pub(crate) range: (f64, f64),
    /// The name of the values.
    pub(crate) label: String,
}

/// Evenly spaced colours of the Viridis colour map, in which larger values look lighter with any form of colour vision.
const COLORS: [[u8; 3]; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2d, 0x7b],
    [0x3b, 0x52, 0x8b],
    [0x2c, 0x72, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x28, 0xae, 0x80],
    [0x5e, 0xc9, 0x62],
    [0xad, 0xdc, 0x30],
    [0xfd, 0xe7, 0x25],
];
/// The colour of NaN and infinite values.
const NOT_FINITE: &str = "#b8bdc3";
const SHADES: usize = 48;
/// The side of a coloured square, in pixels.
const GRAIN: f64 = 4.0;

impl Field {
    /// Whether the coordinates ascend and there is one value per grid point.
    fn is_valid(&self) -> bool {
        let rising = |v: &[f64]| v.len() > 1 && v.windows(2).all(|w| w[0] < w[1]);
        rising(&self.xs) && rising(&self.ys) && self.values.len() == self.xs.len() * self.ys.len()
    }

    fn at(&self, column: usize, row: usize) -> f64 {
        self.values[row * self.xs.len() + column]
    }

    /// The value at a point between grid points, by bilinear interpolation.
    fn between(&self, x: f64, y: f64) -> f64 {
        let (column, s) = cell(&self.xs, x);
        let (row, t) = cell(&self.ys, y);
        let along = |row| mix(self.at(column, row), self.at(column + 1, row), s);
        mix(along(row), along(row + 1), t)
    }

    fn shade(&self, value: f64) -> Option<usize> {
        let (from, to) = self.range;
        let t = (value - from) / (to - from);
        t.is_finite().then(|| (t.clamp(0.0, 1.0) * (SHADES - 1) as f64).round() as usize)
    }

    /// About ten round values within the range.
    fn levels(&self) -> Vec<f64> {
        let (from, to) = self.range;
        if !has_ticks(to - from) || to - from < 1e-9 * from.abs().max(to.abs()) {
            return Vec::new();
        }
        let step = round_step(to - from, 10.0);
        let (first, last) = ((from / step).floor() as i64 + 1, (to / step).ceil() as i64 - 1);
        (first..=last).map(|i| i as f64 * step).collect()
    }

    /// Segments of the contour at a level, by marching squares.
    pub(super) fn contour(&self, level: f64) -> Vec<[(f64, f64); 2]> {
        let mut pieces = Vec::new();
        if !self.is_valid() {
            return pieces;
        }
        for row in 0..self.ys.len() - 1 {
            for column in 0..self.xs.len() - 1 {
                // The corners in order around the cell: neighbours in the array share a side.
                let corners = [(0, 0), (1, 0), (1, 1), (0, 1)].map(|(i, j)| {
                    let (column, row) = (column + i, row + j);
                    (self.xs[column], self.ys[row], self.at(column, row) - level)
                });
                if corners.iter().any(|c| !c.2.is_finite()) {
                    continue;
                }
                let crossing = |i: usize| {
                    let ((x1, y1, a), (x2, y2, b)) = (corners[i], corners[(i + 1) % 4]);
                    ((a < 0.0) != (b < 0.0)).then(|| (mix(x1, x2, a / (a - b)), mix(y1, y2, a / (a - b))))
                };
                let sides: Vec<(f64, f64)> = (0..4).filter_map(crossing).collect();
                match sides[..] {
                    [a, b] => pieces.push([a, b]),
                    // At a saddle, the value at the centre decides which corners are connected.
                    [a, b, c, d] => {
                        let middle = corners.iter().map(|c| c.2).sum::<f64>();
                        let apart = (middle < 0.0) != (corners[0].2 < 0.0);
                        pieces.extend(if apart { [[a, d], [b, c]] } else { [[a, b], [c, d]] });
                    }
                    _ => {}
                }
            }
        }
        pieces
    }

    pub(super) fn draw(&self, svg: &mut String, plot: &Plot<'_>) {
        if self.is_valid() {
            let word = |&value: &f64| if value.is_finite() { significant(value) } else { "-".into() };
            let join = |values: &[f64]| values.iter().map(word).collect::<Vec<_>>().join(" ");
            let _ = writeln!(
                svg,
                r#"<g class="field" data-label="{}" data-xs="{}" data-ys="{}" data-values="{}">"#,
                escape(&self.label),
                join(&self.xs),
                join(&self.ys),
                join(&self.values)
            );
            self.draw_colors(svg, plot);
            self.draw_contours(svg, plot);
            svg.push_str("</g>\n");
        }
        self.draw_bar(svg, plot);
    }

    fn draw_colors(&self, svg: &mut String, plot: &Plot<'_>) {
        let (left, right) = (plot.x(self.xs[0]), plot.x(self.xs[self.xs.len() - 1]));
        let (bottom, top) = (plot.y(self.ys[0]), plot.y(self.ys[self.ys.len() - 1]));
        let (Some(left), Some(right), Some(bottom), Some(top)) = (left, right, bottom, top) else { return };
        let columns = ((right - left) / GRAIN).ceil().max(1.0) as usize;
        let rows = ((bottom - top) / GRAIN).ceil().max(1.0) as usize;
        let mut paths = vec![String::new(); SHADES + 1];
        for row in 0..rows {
            let y = top + row as f64 * GRAIN;
            let height = GRAIN.min(bottom - y);
            let of = |column: usize| {
                let place = |along: f64, length: f64| (along / length).clamp(0.0, 1.0);
                let s = place((column as f64 + 0.5) * GRAIN, right - left);
                let t = place(bottom - y - 0.5 * GRAIN, bottom - top);
                let value =
                    self.between(across(&self.xs, plot.panel.x.scale, s), across(&self.ys, plot.panel.y.scale, t));
                self.shade(value).unwrap_or(SHADES)
            };
            let mut start = 0;
            while start < columns {
                let shade = of(start);
                let end = (start + 1..columns).find(|&column| of(column) != shade).unwrap_or(columns);
                let x = left + start as f64 * GRAIN;
                let width = (left + end as f64 * GRAIN).min(right) - x;
                let _ = write!(paths[shade], "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
                start = end;
            }
        }
        svg.push_str("<g shape-rendering=\"crispEdges\">\n");
        for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let color = if shade == SHADES { NOT_FINITE.into() } else { color(shade as f64 / (SHADES - 1) as f64) };
            let _ = writeln!(svg, r#"<path d="{path}" fill="{color}"/>"#);
        }
        svg.push_str("</g>\n");
    }

    fn draw_contours(&self, svg: &mut String, plot: &Plot<'_>) {
        let (from, to) = self.range;
        for level in self.levels() {
            let mut path = String::new();
            for [a, b] in self.contour(level) {
                if let (Some((x1, y1)), Some((x2, y2))) = (plot.point(a), plot.point(b)) {
                    let _ = write!(path, "M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}");
                }
            }
            let color = if (level - from) / (to - from) < 0.5 { "#ffffff" } else { INK };
            if !path.is_empty() {
                let _ = writeln!(
                    svg,
                    r#"<path d="{path}" fill="none" stroke="{color}" stroke-opacity="0.6" stroke-linecap="round"/>"#
                );
            }
        }
    }

    /// Draws the colour bar with its scale, to the right of the panel.
    fn draw_bar(&self, svg: &mut String, plot: &Plot<'_>) {
        let (x, top, bottom) = (plot.right + 14.0, plot.top, plot.bottom);
        let step = (bottom - top) / SHADES as f64;
        // Each rectangle overlaps the next one slightly, so that no gap is visible.
        let height = step + 1.0;
        svg.push_str("<g shape-rendering=\"crispEdges\">\n");
        for shade in (0..SHADES).rev() {
            let y = bottom - (shade + 1) as f64 * step;
            let color = color(shade as f64 / (SHADES - 1) as f64);
            let _ = writeln!(svg, r#"<rect x="{x:.1}" y="{y:.2}" width="12" height="{height:.2}" fill="{color}"/>"#);
        }
        svg.push_str("</g>\n");
        let (from, to) = self.range;
        let mut axis = Axis::covering(&self.label, from, to);
        axis.ticks.retain(|tick| from < to && (from..=to).contains(tick));
        for (tick, label) in axis.ticks.iter().zip(axis.tick_labels()) {
            let y = bottom - (tick - from) / (to - from) * (bottom - top);
            let _ = writeln!(
                svg,
                r#"<line x1="{:.1}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="{GREY}"/>"#,
                x + 12.0,
                x + 16.0
            );
            text(svg, "tick", (x + 20.0, y + 4.0), "start", &label);
        }
        let _ = writeln!(svg, r#"<g transform="translate({:.1} {:.1}) rotate(-90)">"#, x + 64.0, (top + bottom) / 2.0);
        text(svg, "name", (0.0, 0.0), "middle", &self.label);
        svg.push_str("</g>\n");
    }
}

/// The coordinate at a fraction of the way from the first to the last value, on the scale of the axis.
fn across(values: &[f64], scale: Scale, part: f64) -> f64 {
    let (first, last) = (values[0], values[values.len() - 1]);
    match scale {
        Scale::Linear => mix(first, last, part),
        Scale::Log => 10f64.powf(mix(first.log10(), last.log10(), part)),
    }
}

/// The index of the grid interval that contains a value, and the fraction of the interval below the value.
fn cell(values: &[f64], value: f64) -> (usize, f64) {
    let i = values.partition_point(|&v| v <= value).clamp(1, values.len() - 1) - 1;
    (i, ((value - values[i]) / (values[i + 1] - values[i])).clamp(0.0, 1.0))
}

fn mix(a: f64, b: f64, t: f64) -> f64 {
    if t == 0.0 {
        a
    } else if t == 1.0 {
        b
    } else {
        a + t * (b - a)
    }
}

/// The colour at t: the first colour at t = 0, the last one at t = 1.
fn color(t: f64) -> String {
    let place = t.clamp(0.0, 1.0) * (COLORS.len() - 1) as f64;
    let i = (place as usize).min(COLORS.len() - 2);
    let channel = |c: usize| mix(COLORS[i][c].into(), COLORS[i + 1][c].into(), place - i as f64).round() as u8;
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(f: impl Fn(f64, f64) -> f64) -> Field {
        let xs: Vec<f64> = (-10..=10).map(|i| f64::from(i) / 10.0).collect();
        let values = xs.iter().flat_map(|&y| xs.iter().map(move |&x| (x, y))).map(|(x, y)| f(x, y)).collect();
        Field { ys: xs.clone(), xs, values, range: (0.0, 1.0), label: "height".into() }
    }

    #[test]
    fn contours_of_a_plane_are_straight_and_contours_of_a_cone_are_round() {
        let plane = field(|x, y| x + 2.0 * y).contour(0.25);
        assert!(plane.len() > 20);
        assert!(plane.iter().flatten().all(|(x, y)| (x + 2.0 * y - 0.25).abs() < 1e-12));
        let cone = field(f64::hypot).contour(0.55);
        assert!(cone.len() > 30);
        assert!(cone.iter().flatten().all(|(x, y)| (x.hypot(*y) - 0.55).abs() < 0.01));
        let length: f64 = cone.iter().map(|[a, b]| (a.0 - b.0).hypot(a.1 - b.1)).sum();
        assert!((length / (2.0 * std::f64::consts::PI * 0.55) - 1.0).abs() < 0.01, "{length}");
        let saddle = field(|x, y| (x - 0.05) * (y - 0.05));
        assert!(saddle.contour(0.001).iter().flatten().all(|(x, y)| ((x - 0.05) * (y - 0.05)).abs() < 0.01));
    }

    #[test]
    fn nan_and_infinite_values_have_no_contour_and_no_shade() {
        let hole = field(|x, y| if x > 0.5 { f64::NAN } else { y });
        assert!(hole.contour(0.05).iter().flatten().all(|(x, _)| *x <= 0.5));
        assert_eq!(hole.shade(f64::INFINITY), None);
        assert_eq!((hole.shade(0.0), hole.shade(7.0)), (Some(0), Some(SHADES - 1)));
        assert!(hole.between(0.55, 0.0).is_nan() && hole.between(0.5, 0.25) == 0.25);
        let invalid = Field { values: vec![1.0], ..hole };
        assert!(invalid.contour(0.5).is_empty());
    }

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!((color(0.0).as_str(), color(0.5).as_str(), color(1.0).as_str()), ("#440154", "#21918c", "#fde725"));
    }
}
