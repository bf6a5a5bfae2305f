//! Line charts and contour plots as SVG and PNG.
//!
//! Each SVG is self-contained. Its `data-…` attributes hold the numbers that the script of a report page shows as
//! tooltips.

mod axis;
mod field;

pub(crate) use self::{
    axis::{Axis, Scale, positive_range},
    field::Field,
};

use self::axis::significant;
use crate::ReportError;
use resvg::{tiny_skia, usvg};
use std::{fmt::Write, sync::Arc};

/// A title with panels below it.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// A description of the figure in words, for screen readers.
    pub(crate) description: String,
    pub(crate) panels: Vec<Panel>,
}

/// Lines on shared axes, drawn over a field if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) field: Option<Field>,
}

/// A line. With a marker, each point also has an error bar of ± its spread. A point that is NaN or infinite, or not
/// positive on a logarithmic axis, interrupts the line. A point out of range is drawn at the edge of the plot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) color: String,
    pub(crate) marker: Option<Marker>,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) spread: Vec<f64>,
    /// The individual measurements behind the points.
    pub(crate) dots: Vec<(f64, f64)>,
    /// The tooltip of each point; by default, its numbers.
    pub(crate) tips: Vec<String>,
}

/// The shape of a line's points, which distinguishes lines without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
}

/// The largest number of panels in a row.
const COLUMNS: usize = 2;
/// The largest height of a PNG, in pixels. A figure of so many lines shows nothing anyway.
const TALLEST: u32 = 20_000;
const PANEL: (f64, f64) = (470.0, 330.0);
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
/// The width of a field's colour bar with its labels.
const BAR: f64 = 86.0;
const BOTTOM: f64 = 50.0;
const LEGEND_ROW: f64 = 18.0;
const INK: &str = "#1f2328";
const GREY: &str = "#59636e";
const GRID: &str = "#e3e6ea";
const FONT: &str = "Roboto, 'Helvetica Neue', Arial, sans-serif";

impl Figure {
    /// The figure as an SVG document.
    pub(crate) fn to_svg(&self) -> String {
        let columns = COLUMNS.min(self.panels.len()).max(1);
        let width = columns as f64 * PANEL.0;
        let titles = wrap(&self.title, width - LEFT - RIGHT, 20.0);
        let subtitles = wrap(&self.subtitle, width - LEFT - RIGHT, 12.5);
        let head = 22.0 * titles.len() as f64 + 18.0 * subtitles.len() as f64 + 22.0;
        let top = self.panels.iter().map(Panel::head).fold(0.0, f64::max);
        let panel_height = PANEL.1 - 58.0 + top;
        let height = head + self.panels.len().div_ceil(columns) as f64 * panel_height;
        let mut svg = open(width, height, &self.description);
        let _ = writeln!(svg, "<title>{}</title>", escape(&self.title));
        let _ = writeln!(svg, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##);
        let mut y = 6.0;
        for (class, size, lines) in [("title", 22.0, titles), ("subtitle", 18.0, subtitles)] {
            for line in lines {
                y += size;
                text(&mut svg, class, (LEFT, y), "start", &line);
            }
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let x = (i % columns) as f64 * PANEL.0;
            let y = head + (i / columns) as f64 * panel_height;
            let _ = writeln!(svg, r#"<g transform="translate({x} {y})">"#);
            panel.draw_head(&mut svg);
            Plot::new(panel, top, panel_height).draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The figure as a PNG at twice the size of the SVG, drawn with the embedded font.
    pub(crate) fn to_png(&self) -> Result<Vec<u8>, ReportError> {
        let failed = |e: &dyn std::fmt::Display| ReportError::Picture(format!("`{}`: {e}", self.title));
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(include_bytes!("../../assets/Roboto-Regular.ttf").to_vec());
        let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.to_svg(), &options).map_err(|e| failed(&e))?;
        let size = tree.size().to_int_size().scale_by(2.0).ok_or_else(|| failed(&"the figure has no size"))?;
        if size.height() > TALLEST {
            return Err(failed(&format!("the figure is more than {TALLEST} pixels high")));
        }
        let mut pixmap =
            tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| failed(&"the figure has no size"))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixmap.as_mut());
        pixmap.encode_png().map_err(|e| failed(&e))
    }
}

impl Panel {
    /// A panel without a field.
    pub(crate) fn new(title: String, x: Axis, y: Axis, lines: Vec<Line>) -> Self {
        Self { title, x, y, lines, field: None }
    }

    /// The panel without its title and legend, which a page shows as text.
    pub(crate) fn to_svg(&self) -> String {
        let (top, height) = (14.0, PANEL.1 - 44.0);
        let lines: Vec<&str> = self.lines.iter().map(|line| line.label.as_str()).collect();
        let field = self.field.as_ref().map(|field| format!("{} over ", field.label)).unwrap_or_default();
        let names = if lines.is_empty() { String::new() } else { format!(" Lines: {}.", lines.join(", ")) };
        let label = format!("{}: {field}{} against {}.{names}", self.title, self.y.label, self.x.label);
        let mut svg = open(PANEL.0, height, &label);
        Plot::new(self, top, height).draw(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn titles(&self) -> Vec<String> {
        wrap(&self.title, PANEL.0 - LEFT - RIGHT, 14.5)
    }

    /// The entries of the legend, row by row, each with its position from the left.
    fn legend(&self) -> Vec<Vec<(f64, &Line)>> {
        let mut rows: Vec<Vec<(f64, &Line)>> = Vec::new();
        let mut x = f64::MAX;
        for line in self.lines.iter().filter(|line| !line.label.is_empty()) {
            let width = 26.0 + measure(&line.label, 12.0) + 14.0;
            if x + width > PANEL.0 {
                x = LEFT;
                rows.push(Vec::new());
            }
            if let Some(row) = rows.last_mut() {
                row.push((x, line));
            }
            x += width;
        }
        rows
    }

    /// The height of the title and the legend.
    fn head(&self) -> f64 {
        22.0 + 18.0 * self.titles().len() as f64 + LEGEND_ROW * self.legend().len() as f64
    }

    fn draw_head(&self, svg: &mut String) {
        let mut y = 20.0;
        for line in self.titles() {
            text(svg, "panel-title", (LEFT, y), "start", &line);
            y += 18.0;
        }
        for row in self.legend() {
            for (x, line) in row {
                line.draw_key(svg, (x, y));
                text(svg, "key", (x + 26.0, y + 4.0), "start", &line.label);
            }
            y += LEGEND_ROW;
        }
    }
}

impl Line {
    /// A line without points.
    pub(crate) fn new(label: &str, color: &str) -> Self {
        Self { label: label.into(), color: color.into(), ..Self::default() }
    }

    /// Draws a sample of the line with its marker, 20 pixels long.
    fn draw_key(&self, svg: &mut String, (x, y): (f64, f64)) {
        let color = escape(&self.color);
        let end = x + 20.0;
        let _ = writeln!(svg, r#"<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="{color}" stroke-width="2.5"/>"#);
        if let Some(marker) = self.marker {
            marker.draw(svg, (x + 10.0, y), &color, "");
        }
    }

    /// The sample for a legend, as a separate SVG.
    pub(crate) fn key_svg(&self) -> String {
        let mut svg = String::from(r#"<svg viewBox="0 0 20 12" width="20" height="12" aria-hidden="true">"#);
        self.draw_key(&mut svg, (0.0, 6.0));
        svg + "</svg>"
    }
}

/// The plot area of a panel, in pixels.
struct Plot<'a> {
    panel: &'a Panel,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl<'a> Plot<'a> {
    fn new(panel: &'a Panel, top: f64, height: f64) -> Self {
        let right = PANEL.0 - if panel.field.is_some() { BAR } else { RIGHT };
        Self { panel, left: LEFT, right, top, bottom: height - BOTTOM }
    }

    fn x(&self, value: f64) -> Option<f64> {
        Some(self.left + self.panel.x.place(value)?.clamp(0.0, 1.0) * (self.right - self.left))
    }

    fn y(&self, value: f64) -> Option<f64> {
        Some(self.bottom - self.panel.y.place(value)?.clamp(0.0, 1.0) * (self.bottom - self.top))
    }

    fn point(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x(x)?, self.y(y)?))
    }

    fn draw(&self, svg: &mut String) {
        let Self { panel, left, right, top, bottom } = self;
        let axis = |axis: &Axis| {
            let scale = if axis.scale == Scale::Log { "log" } else { "linear" };
            format!("{scale} {} {}", axis.range.0, axis.range.1)
        };
        let _ = writeln!(
            svg,
            r#"<g class="plot" data-box="{left} {top} {right} {bottom}" data-x="{}" data-y="{}" data-x-label="{}" data-y-label="{}">"#,
            axis(&panel.x),
            axis(&panel.y),
            escape(&panel.x.label),
            escape(&panel.y.label)
        );
        if let Some(field) = &panel.field {
            field.draw(svg, self);
        }
        self.draw_axes(svg);
        for line in &panel.lines {
            self.draw_line(svg, line);
        }
        svg.push_str("</g>\n");
    }

    fn draw_axes(&self, svg: &mut String) {
        let &Self { panel, left, right, top, bottom } = self;
        for (&tick, label) in panel.y.ticks.iter().zip(panel.y.tick_labels()) {
            let Some(y) = self.y(tick) else { continue };
            if panel.field.is_none() {
                let _ = writeln!(svg, r#"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="{GRID}"/>"#);
            }
            text(svg, "tick", (left - 8.0, y + 4.0), "end", &label);
        }
        let mut free = f64::MIN;
        for (&tick, label) in panel.x.ticks.iter().zip(panel.x.tick_labels()) {
            let Some(x) = self.x(tick) else { continue };
            let half = measure(&label, 11.5) / 2.0 + 3.0;
            let end = bottom + 4.0;
            let _ = writeln!(svg, r#"<line x1="{x:.1}" y1="{bottom}" x2="{x:.1}" y2="{end}" stroke="{GREY}"/>"#);
            if x - half > free {
                text(svg, "tick", (x, bottom + 17.0), "middle", &label);
                free = x + half;
            }
        }
        let _ = writeln!(svg, r#"<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{GREY}"/>"#);
        text(svg, "name", ((left + right) / 2.0, bottom + 38.0), "middle", &panel.x.label);
        let _ = writeln!(svg, r#"<g transform="translate(18 {}) rotate(-90)">"#, (top + bottom) / 2.0);
        text(svg, "name", (0.0, 0.0), "middle", &panel.y.label);
        svg.push_str("</g>\n");
    }

    fn draw_line(&self, svg: &mut String, line: &Line) {
        let color = escape(&line.color);
        let places: Vec<Option<(f64, f64)>> = line.points.iter().map(|&point| self.point(point)).collect();
        Self::open_series(svg, line, &places);
        for (x, y) in line.dots.iter().filter_map(|&dot| self.point(dot)) {
            let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2" fill="{color}" fill-opacity="0.45"/>"#);
        }
        let width = if line.marker.is_some() { 2.5 } else { 1.8 };
        for run in places.split(Option::is_none).filter(|run| !run.is_empty()) {
            let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
            if let ([(x, y)], None) = (&run[..], line.marker) {
                let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{width}" fill="{color}"/>"#);
            }
            let path: Vec<String> = run.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#,
                path.join(" ")
            );
        }
        if let Some(marker) = line.marker {
            for (i, &place) in places.iter().enumerate() {
                let Some((x, y)) = place else { continue };
                self.draw_error_bar(svg, line, i, x);
                marker.draw(svg, (x, y), &color, &self.tip(line, i));
            }
        }
        svg.push_str("</g>\n");
    }

    /// Opens the group of a line, with the numbers that the script shows.
    fn open_series(svg: &mut String, line: &Line, places: &[Option<(f64, f64)>]) {
        let shown = || (0..places.len()).filter(|&i| places[i].is_some());
        let numbers = |i: usize| {
            let (x, y) = line.points[i];
            let spread = line.spread.get(i).map(|&spread| format!(",{}", significant(spread))).unwrap_or_default();
            format!("{},{}{spread}", significant(x), significant(y))
        };
        let _ = write!(
            svg,
            r#"<g class="series" data-label="{}" data-color="{}" data-points="{}""#,
            escape(&line.label),
            escape(&line.color),
            shown().map(numbers).collect::<Vec<_>>().join(" ")
        );
        if !line.tips.is_empty() {
            let tips: Vec<&str> = shown().map(|i| line.tips.get(i).map_or("", String::as_str)).collect();
            let _ = write!(svg, r#" data-tips="{}""#, escape(&serde_json::to_string(&tips).unwrap_or_default()));
        }
        svg.push_str(">\n");
    }

    fn draw_error_bar(&self, svg: &mut String, line: &Line, i: usize, x: f64) {
        let (y, spread) = (line.points[i].1, line.spread.get(i).copied().unwrap_or(0.0));
        let Some(top) = self.y(y + spread) else { return };
        // The lower end may be negative, which a logarithmic axis cannot show.
        let bottom = self.y(y - spread).unwrap_or(self.bottom);
        if bottom - top > 0.5 {
            let (left, right) = (x - 4.0, x + 4.0);
            let _ = writeln!(
                svg,
                r#"<path d="M{left:.1} {top:.1}H{right:.1}M{left:.1} {bottom:.1}H{right:.1}M{x:.1} {top:.1}V{bottom:.1}" stroke="{}" stroke-width="1.4"/>"#,
                escape(&line.color)
            );
        }
    }

    fn tip(&self, line: &Line, i: usize) -> String {
        if let Some(tip) = line.tips.get(i) {
            return format!("{}: {tip}", line.label);
        }
        let (x, y) = line.points[i];
        let spread = line.spread.get(i).map(|&spread| format!(" ± {}", significant(spread))).unwrap_or_default();
        let Panel { x: x_axis, y: y_axis, .. } = self.panel;
        format!("{}: {} {}, {} {}{spread}", line.label, x_axis.label, significant(x), y_axis.label, significant(y))
    }
}

impl Marker {
    fn draw(self, svg: &mut String, (x, y): (f64, f64), color: &str, tip: &str) {
        let (name, shape) = match self {
            Self::Circle => ("circle", format!(r#"cx="{x:.1}" cy="{y:.1}" r="4.5""#)),
            Self::Square => ("rect", format!(r#"x="{:.1}" y="{:.1}" width="8.4" height="8.4""#, x - 4.2, y - 4.2)),
            Self::Triangle => ("path", format!(r#"d="M{x:.1} {:.1} l5.2 9 h-10.4 z""#, y - 5.6)),
        };
        let tip = if tip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tip)) };
        let _ = writeln!(svg, r##"<{name} {shape} fill="{color}" stroke="#ffffff">{tip}</{name}>"##);
    }
}

fn open(width: f64, height: f64, label: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="{FONT}" role="img" aria-label="{}">
"#,
        escape(label)
    )
}

/// Draws text with a CSS class, so that a page can enlarge it on a small screen.
fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, content: &str) {
    let (size, color) = match class {
        "title" => (20.0, INK),
        "subtitle" => (12.5, GREY),
        "panel-title" => (14.5, INK),
        "key" => (12.0, INK),
        "name" => (12.5, INK),
        _ => (11.5, GREY),
    };
    let _ = writeln!(
        svg,
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{color}" text-anchor="{anchor}">{}</text>"#,
        escape(content)
    );
}

/// The approximate width of a text, in pixels.
fn measure(text: &str, size: f64) -> f64 {
    0.55 * size * text.chars().count() as f64
}

/// Breaks a text into lines that fit the width.
fn wrap(text: &str, width: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if measure(line, size) + measure(word, size) + 0.3 * size <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Escapes text for XML and HTML. Control characters, most of which XML does not allow, are escaped as in Rust.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            '\u{fffe}' | '\u{ffff}' => escaped.extend(character.escape_unicode()),
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
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
            ..Line::default()
        };
        let x = Axis { label: "x".into(), range: (0.0, 10.0), ticks: vec![0.0, 10.0], scale: Scale::Linear };
        let panel = Panel { title: "t".into(), x, y: Axis::from_zero("y", 50.0), lines: vec![line], field: None };
        Figure { title: "T".into(), subtitle: "s".into(), description: "d".into(), panels: vec![panel] }
    }

    /// The number of pixels of a colour.
    fn count(png: &[u8], color: (u8, u8, u8)) -> usize {
        let pixmap = tiny_skia::Pixmap::decode_png(png).unwrap();
        pixmap.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == color).count()
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("\u{1b}[2J\0\r\n\u{ffff}é"), "\\u{1b}[2J\\u{0}\\r\n\\u{ffff}é");
        let figure = Figure { title: "\u{1b}\0".into(), ..figure() };
        assert!(figure.to_png().is_ok());
    }

    #[test]
    fn a_figure_of_too_many_lines_has_no_png() {
        let mut figure = figure();
        figure.panels[0].lines = vec![figure.panels[0].lines[0].clone(); 5000];
        assert!(figure.to_png().unwrap_err().to_string().contains("pixels high"));
    }

    #[test]
    fn points_are_placed_by_the_axes() {
        let figure = figure();
        let plot = Plot::new(&figure.panels[0], 58.0, PANEL.1);
        assert_eq!((plot.x(0.0), plot.x(10.0)), (Some(LEFT), Some(PANEL.0 - RIGHT)));
        assert_eq!((plot.y(0.0), plot.y(50.0)), (Some(PANEL.1 - BOTTOM), Some(58.0)));
        assert_eq!((plot.y(1e9), plot.y(f64::NAN)), (Some(58.0), None));
    }

    #[test]
    fn the_png_shows_the_line_and_the_text() {
        let figure = figure();
        assert!(figure.to_svg().contains("a &lt; b &amp; &quot;c&quot;"));
        let png = figure.to_png().unwrap();
        let pixmap = tiny_skia::Pixmap::decode_png(&png).unwrap();
        assert_eq!((pixmap.width(), pixmap.height()), (940, 784));
        let dark = pixmap.pixels().iter().filter(|p| p.red() < 60 && p.green() < 60).count();
        assert!(count(&png, (0, 0x72, 0xb2)) > 500, "the line is missing");
        assert!(dark > 100, "the text is missing");
    }

    #[test]
    fn nan_and_infinite_points_interrupt_a_line() {
        let mut figure = figure();
        let line = &mut figure.panels[0].lines[0];
        line.points = [1.0, 2.0, f64::NAN, 4.0, f64::INFINITY, 6.0, 7.0].map(|y| (y, y)).to_vec();
        line.spread.clear();
        line.tips = (0..7).map(|i| format!("tip {i}")).collect();
        let svg = figure.to_svg();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<title>a ").count()), (3, 5));
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("tip 3") && !svg.contains("tip 2"));
        figure.panels[0].y = Axis::log("y", 1.0, 10.0);
        figure.panels[0].lines[0].points = vec![(1.0, 1.0), (2.0, 0.0), (3.0, 10.0)];
        assert!(!figure.to_svg().contains("NaN"));
    }

    #[test]
    fn a_wide_legend_breaks_into_rows() {
        let mut figure = figure();
        let line = figure.panels[0].lines[0].clone();
        let before = figure.panels[0].head();
        figure.panels[0].lines = vec![line; 9];
        let panel = &figure.panels[0];
        assert_eq!(panel.legend().iter().map(Vec::len).sum::<usize>(), 9);
        assert!(panel.legend().len() > 1 && panel.head() > before);
        for (x, line) in panel.legend().into_iter().flatten() {
            assert!(x + 26.0 + measure(&line.label, 12.0) <= PANEL.0);
        }
    }

    #[test]
    fn a_field_has_colours_and_a_colour_bar() {
        let mut figure = figure();
        let axis: Vec<f64> = (0..25).map(|i| f64::from(i) * 10.0 / 24.0).collect();
        let mut values: Vec<f64> = axis.iter().flat_map(|y| axis.iter().map(move |x| x + y)).collect();
        values[0] = f64::NAN;
        let field = Field { xs: axis.clone(), ys: axis, values, range: (0.0, 20.0), label: "loss".into() };
        let panel = &mut figure.panels[0];
        (panel.field, panel.y, panel.lines) = (Some(field), Axis::covering("y", 0.0, 10.0), Vec::new());
        let svg = figure.to_svg();
        assert!(svg.len() < 100_000 && !svg.contains("NaN") && svg.contains(">loss<"), "{}", svg.len());
        let png = figure.to_png().unwrap();
        assert!(count(&png, (0xfd, 0xe7, 0x25)) > 50, "the lightest colour is missing");
        assert!(count(&png, (0xb8, 0xbd, 0xc3)) > 50, "no grey for the value that is NaN");
        if let Some(field) = &mut figure.panels[0].field {
            (field.values, field.range) = (vec![f64::NAN; 25 * 25], (f64::NAN, f64::NAN));
        }
        assert!(!figure.to_svg().contains("NaN") && figure.to_png().is_ok());
    }
}
