//! Line charts as SVG, and the same as PNG.

use crate::LabError;
use resvg::{tiny_skia, usvg};
use std::{fmt::Write, sync::Arc};

/// Panels under a title.
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// What the figure shows, for those who cannot see it.
    pub(crate) description: String,
    pub(crate) columns: usize,
    pub(crate) panels: Vec<Panel>,
}

/// Lines over common axes.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// A linear axis.
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<f64>,
}

/// One line, with a marker and a whisker of ± spread at each point if it has markers.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) color: String,
    pub(crate) marker: Option<Marker>,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) spread: Vec<f64>,
    /// Single measurements behind the points.
    pub(crate) dots: Vec<(f64, f64)>,
}

/// The shape that tells lines apart without colour.
#[derive(Clone, Copy)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
}

const PANEL: (f64, f64) = (470.0, 330.0);
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 50.0;
const HEAD: f64 = 62.0;
const INK: &str = "#1f2328";
const GREY: &str = "#59636e";
const GRID: &str = "#e3e6ea";
const FONT: &str = "Roboto, 'Helvetica Neue', Arial, sans-serif";

impl Axis {
    /// From 0 to at least `max`, with about five round ticks.
    pub(crate) fn from_zero(label: &str, max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let magnitude = 10f64.powf((max / 5.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|s| max / s <= 5.0 + 1e-9);
        let step = step.unwrap_or(max / 5.0);
        let count = (max / step - 1e-9).ceil() as usize;
        let ticks: Vec<f64> = (0..=count).map(|i| i as f64 * step).collect();
        Self { label: label.into(), range: (0.0, count as f64 * step), ticks }
    }
}

impl Figure {
    fn size(&self) -> (f64, f64) {
        let rows = self.panels.len().div_ceil(self.columns);
        let columns = self.columns.min(self.panels.len()).max(1);
        (columns as f64 * PANEL.0, HEAD + rows as f64 * PANEL.1)
    }

    /// The figure as an SVG document.
    pub(crate) fn to_svg(&self) -> String {
        let (width, height) = self.size();
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="{FONT}" role="img" aria-label="{}">"#,
            escape(&self.description)
        );
        let _ = writeln!(svg, "<title>{}</title>", escape(&self.title));
        let _ = writeln!(svg, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##);
        text(&mut svg, (LEFT, 28.0), 20.0, INK, "start", &self.title);
        text(&mut svg, (LEFT, 48.0), 12.5, GREY, "start", &self.subtitle);
        for (i, panel) in self.panels.iter().enumerate() {
            let x = (i % self.columns) as f64 * PANEL.0;
            let y = HEAD + (i / self.columns) as f64 * PANEL.1;
            let _ = writeln!(svg, r#"<g transform="translate({x} {y})">"#);
            panel.draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The figure as a PNG at twice its size, drawn with the embedded font.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>, LabError> {
        let failed = |e: &dyn std::fmt::Display| LabError::Picture(format!("{}: {e}", self.title));
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(include_bytes!("../assets/Roboto-Regular.ttf").to_vec());
        let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.to_svg(), &options).map_err(|e| failed(&e))?;
        let size = tree.size().to_int_size().scale_by(2.0).ok_or_else(|| failed(&"it has no size"))?;
        let mut pixmap =
            tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| failed(&"it has no size"))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixmap.as_mut());
        pixmap.encode_png().map_err(|e| failed(&e))
    }
}

impl Panel {
    fn x(&self, value: f64) -> f64 {
        let (from, to) = self.x.range;
        LEFT + (value - from) / (to - from) * (PANEL.0 - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let (from, to) = self.y.range;
        let bottom = PANEL.1 - BOTTOM;
        bottom - (value.clamp(from, to) - from) / (to - from) * (bottom - TOP)
    }

    fn draw(&self, svg: &mut String) {
        text(svg, (LEFT, 20.0), 14.5, INK, "start", &self.title);
        self.draw_legend(svg);
        self.draw_axes(svg);
        for line in &self.lines {
            self.draw_line(svg, line);
        }
    }

    fn draw_legend(&self, svg: &mut String) {
        let mut x = LEFT;
        for line in &self.lines {
            let y = 38.0;
            let _ = writeln!(
                svg,
                r#"<line x1="{x}" y1="{y}" x2="{}" y2="{y}" stroke="{}" stroke-width="2.5"/>"#,
                x + 20.0,
                line.color
            );
            if let Some(marker) = line.marker {
                marker.draw(svg, (x + 10.0, y), &line.color, "");
            }
            text(svg, (x + 26.0, y + 4.0), 12.0, INK, "start", &line.label);
            x += 26.0 + 6.6 * line.label.chars().count() as f64 + 14.0;
        }
    }

    fn draw_axes(&self, svg: &mut String) {
        let (left, right, bottom) = (LEFT, PANEL.0 - RIGHT, PANEL.1 - BOTTOM);
        for &tick in &self.y.ticks {
            let y = self.y(tick);
            let _ = writeln!(svg, r#"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="{GRID}"/>"#);
            text(svg, (left - 8.0, y + 4.0), 11.5, GREY, "end", &number(tick));
        }
        let mut free = f64::MIN;
        for &tick in &self.x.ticks {
            let (x, label) = (self.x(tick), number(tick));
            let half = 3.4 * label.len() as f64 + 2.0;
            let _ =
                writeln!(svg, r#"<line x1="{x:.1}" y1="{bottom}" x2="{x:.1}" y2="{}" stroke="{GREY}"/>"#, bottom + 4.0);
            if x - half > free {
                text(svg, (x, bottom + 17.0), 11.5, GREY, "middle", &label);
                free = x + half;
            }
        }
        let _ = writeln!(svg, r#"<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{GREY}"/>"#);
        text(svg, ((left + right) / 2.0, bottom + 38.0), 12.5, INK, "middle", &self.x.label);
        let middle = (TOP + bottom) / 2.0;
        let _ = writeln!(svg, r#"<g transform="translate(18 {middle}) rotate(-90)">"#);
        text(svg, (0.0, 0.0), 12.5, INK, "middle", &self.y.label);
        svg.push_str("</g>\n");
    }

    fn draw_line(&self, svg: &mut String, line: &Line) {
        let Line { color, points, .. } = line;
        for &(x, y) in &line.dots {
            let _ = writeln!(
                svg,
                r#"<circle cx="{:.1}" cy="{:.1}" r="2" fill="{color}" fill-opacity="0.45"/>"#,
                self.x(x),
                self.y(y)
            );
        }
        let path: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1},{:.1}", self.x(x), self.y(y))).collect();
        let width = if line.marker.is_some() { 2.5 } else { 1.8 };
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#,
            path.join(" ")
        );
        let Some(marker) = line.marker else { return };
        for (&(x, y), &spread) in points.iter().zip(&line.spread) {
            let (px, top, bottom) = (self.x(x), self.y(y + spread), self.y(y - spread));
            if bottom - top > 0.5 {
                for (x1, y1, x2, y2) in
                    [(px, top, px, bottom), (px - 4.0, top, px + 4.0, top), (px - 4.0, bottom, px + 4.0, bottom)]
                {
                    let _ = writeln!(
                        svg,
                        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}" stroke-width="1.4"/>"#
                    );
                }
            }
            let tip = format!("{}, {x} layers: {y:.2} ± {spread:.2}", line.label);
            marker.draw(svg, (px, self.y(y)), color, &tip);
        }
    }
}

impl Marker {
    fn draw(self, svg: &mut String, (x, y): (f64, f64), color: &str, tip: &str) {
        let shape = match self {
            Self::Circle => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5""#),
            Self::Square => format!(r#"<rect x="{:.1}" y="{:.1}" width="8.4" height="8.4""#, x - 4.2, y - 4.2),
            Self::Triangle => {
                format!(r#"<path d="M{x:.1} {:.1} l5.2 9 h-10.4 z""#, y - 5.6)
            }
        };
        let _ = writeln!(
            svg,
            r##"{shape} fill="{color}" stroke="#ffffff"><title>{}</title></{}>"##,
            escape(tip),
            match self {
                Self::Circle => "circle",
                Self::Square => "rect",
                Self::Triangle => "path",
            }
        );
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), size: f64, color: &str, anchor: &str, content: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{color}" text-anchor="{anchor}">{}</text>"#,
        escape(content)
    );
}

/// Without a trail of zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Text made safe for XML and HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let line = Line {
            label: "a < b & \"c\"".into(),
            color: "#0072b2".into(),
            marker: Some(Marker::Triangle),
            points: vec![(0.0, 0.0), (10.0, 50.0)],
            spread: vec![0.0, 5.0],
            dots: vec![(10.0, 45.0)],
        };
        let x = Axis { label: "x".into(), range: (0.0, 10.0), ticks: vec![0.0, 10.0] };
        let panel = Panel { title: "t".into(), x, y: Axis::from_zero("y", 50.0), lines: vec![line] };
        Figure { title: "T".into(), subtitle: "s".into(), description: "d".into(), columns: 2, panels: vec![panel] }
    }

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        let ticks = |max| Axis::from_zero("", max).ticks;
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(91.3), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(2.4), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(Axis::from_zero("", 0.0).range, (0.0, 1.0));
    }

    #[test]
    fn points_land_where_the_axes_say() {
        let figure = figure();
        let panel = &figure.panels[0];
        assert_eq!((panel.x(0.0), panel.x(10.0)), (LEFT, PANEL.0 - RIGHT));
        assert_eq!((panel.y(0.0), panel.y(50.0)), (PANEL.1 - BOTTOM, TOP));
        assert_eq!(panel.y(1e9), TOP);
    }

    #[test]
    fn the_picture_is_valid_and_has_ink() {
        let figure = figure();
        assert!(figure.to_svg().contains("a &lt; b &amp; &quot;c&quot;"));
        let png = figure.to_png().unwrap();
        let pixmap = tiny_skia::Pixmap::decode_png(&png).unwrap();
        assert_eq!((pixmap.width(), pixmap.height()), (940, 784));
        let blue = pixmap.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (0, 0x72, 0xb2)).count();
        let dark = pixmap.pixels().iter().filter(|p| p.red() < 60 && p.green() < 60).count();
        assert!(blue > 500, "the line is missing");
        assert!(dark > 100, "the text is missing");
    }
}
