//! One page of what was found: sweeps, and measurements inside networks.

use crate::{
    Inspection, LabError, Results, Series, SweepConfig, What,
    chart::{Figure, Panel, escape},
    figures, table,
    verdict::{NO_VERDICT, RULE},
};
use residual_model::Family;
use residual_train::Environment;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

const STYLE: &str = include_str!("../assets/report.css");
const SCRIPT: &str = include_str!("../assets/report.js");

/// Sweeps and inspections, to be shown on one page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    sweeps: Vec<Results>,
    inspections: Vec<Inspection>,
    /// Whether the page lies in the sweep's folder, beside its other files.
    beside: bool,
    /// Whether sweeps were explained.
    explained: bool,
}

impl Report {
    /// Reads the folders of sweeps, with the inspections in them, and folders of inspections. Nothing is written.
    ///
    /// # Errors
    /// If a folder holds neither, or its files are damaged.
    pub fn read<P: AsRef<Path>>(folders: &[P]) -> Result<Self, LabError> {
        let mut report = Self::default();
        for folder in folders.iter().map(AsRef::as_ref) {
            let wrong = |reason: &str| LabError::Folder { path: folder.into(), reason: reason.into() };
            if !folder.is_dir() {
                return Err(wrong("is no folder; expected one that `residual sweep` or `residual inspect` wrote"));
            }
            let sweep = folder.join("results.json").exists();
            if !sweep && folder.join("sweep.json").exists() {
                return Err(wrong("holds a sweep that is not finished; its `residual sweep` goes on with it"));
            }
            let inspections = if sweep { inside(folder)? } else { Inspection::read_all(folder)? };
            if !sweep && inspections.is_empty() {
                return Err(wrong(
                    "holds neither a sweep nor an inspection; expected what `residual sweep` or `residual inspect` wrote",
                ));
            }
            report.explained |= sweep && !inspections.is_empty();
            if sweep {
                report.sweeps.push(Results::read(folder)?);
            }
            report.inspections.extend(inspections);
        }
        Ok(report)
    }

    /// Of a sweep, with the inspections in its folder, where the page will lie too.
    pub(crate) fn of_sweep(results: &Results, folder: &Path) -> Result<Self, LabError> {
        let inspections = inside(folder)?;
        Ok(Self { sweeps: vec![results.clone()], explained: !inspections.is_empty(), inspections, beside: true })
    }

    /// The page, which needs no other file and no network.
    pub fn html(&self) -> String {
        let mut page = Page::default();
        self.write_head(&mut page);
        for results in &self.sweeps {
            self.write_sweep(&mut page, results);
        }
        self.write_inspections(&mut page);
        self.write_method(&mut page);
        page.text
    }

    fn write_head(&self, page: &mut Page) {
        let runs: usize = self.sweeps.iter().map(|results| results.runs.len()).sum();
        let (title, question) = match self.sweeps.is_empty() {
            false => ("Plain and residual nets by depth", "Does a deeper net train better?"),
            true => ("Plain and residual nets from within", "Why do shortcuts help?"),
        };
        let paper = "<a href=\"https://arxiv.org/abs/1512.03385\">He et al. 2015</a>";
        let claim = format!(
            "Without shortcuts, training error falls with depth and then rises again; with a shortcut around every two \
             layers it stays down ({paper})."
        );
        let answer = match (runs, self.inspections.len()) {
            (0, n) => format!("This is what {} inside networks say.", figures::counted(n, "measurement")),
            (runs, 0) => format!("This is what {} on one machine say.", figures::counted(runs, "training")),
            (runs, n) => format!(
                "This is what {} say, and what {} inside the networks say of the reason.",
                figures::counted(runs, "training"),
                figures::counted(n, "measurement")
            ),
        };
        page.put(format_args!(
            r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>{question}</h1>
<p class="lede">{claim} {answer}</p>
"#
        ));
        let found: Vec<What> = self.kinds();
        if self.sweeps.len() + found.len() > 1 {
            page.put(format_args!("<nav aria-label=\"Contents\">\n<ul>\n"));
            for (i, results) in self.sweeps.iter().enumerate() {
                let (number, title) = (i + 1, escape(&self.sweep_title(i + 1, results)));
                page.put(format_args!("<li><a href=\"#sweep-{number}\">{title}</a></li>\n"));
            }
            for what in found {
                page.put(format_args!("<li><a href=\"#{what}\">{}</a></li>\n", what.title()));
            }
            page.put(format_args!("<li><a href=\"#method\">How it was measured</a></li>\n</ul>\n</nav>\n"));
        }
        page.put(format_args!("</header>\n<main>\n"));
    }

    /// What was inspected, in the order of a report.
    fn kinds(&self) -> Vec<What> {
        let found = |what: &&What| self.inspections.iter().any(|inspection| inspection.what == **what);
        What::ALL.iter().filter(found).copied().collect()
    }

    fn sweep_title(&self, number: usize, results: &Results) -> String {
        match self.sweeps.len() {
            1 => "Error against depth".into(),
            _ => format!("Error against depth, {number}: {}", subject(&results.config)),
        }
    }

    fn write_sweep(&self, page: &mut Page, results: &Results) {
        page.sweeps += 1;
        let number = page.sweeps;
        page.put(format_args!("<section id=\"sweep-{number}\" aria-labelledby=\"sweep-{number}-title\">\n"));
        let title = self.sweep_title(number, results);
        page.put(format_args!("<h2 id=\"sweep-{number}-title\">{}</h2>\n", escape(&title)));
        page.figure(&figures::depth(results));
        page.put(format_args!("<h3>Verdict</h3>\n"));
        for verdict in &results.verdicts {
            let finding = verdict.finding.to_string();
            let (answer, reason) = match finding.split_once(": ") {
                Some((answer, reason)) => (answer, format!(" {}.", capital(reason))),
                None => (finding.as_str(), String::new()),
            };
            page.put(format_args!(
                "<div class=\"finding\">\n<p><b>{} nets: {answer}.</b>{reason}</p>\n<p class=\"detail\">{}</p>\n</div>\n",
                capital(&verdict.family.to_string()),
                verdict.detail()
            ));
        }
        if results.verdicts.is_empty() {
            page.put(format_args!("<p>{NO_VERDICT}</p>\n"));
        }
        page.put(format_args!("<h3>Error, in per cent</h3>\n"));
        if results.config.seeds > 1 {
            page.put(format_args!("<p class=\"note\">Mean ± standard deviation.</p>\n"));
        }
        for family in [Family::Dense, Family::Conv] {
            write_table(page, &results.series, family);
        }
        if results.runs.iter().any(|run| !run.curve.is_empty()) {
            page.put(format_args!("<h3>Loss during training</h3>\n"));
            page.figure(&figures::curves(results));
        }
        let explain = if self.explained { " --explain" } else { "" };
        page.command(&format!("{}{explain}", results.config.command(&results.environment)));
        page.put(format_args!("</section>\n"));
    }

    fn write_inspections(&self, page: &mut Page) {
        for what in self.kinds() {
            page.put(format_args!(
                "<section id=\"{what}\" aria-labelledby=\"{what}-title\">\n<h2 id=\"{what}-title\">{}</h2>\n<p>{}</p>\n",
                escape(what.title()),
                escape(what.explanation())
            ));
            for inspection in self.inspections.iter().filter(|inspection| inspection.what == what) {
                page.put(format_args!("<h3 class=\"subject\">{}</h3>\n", escape(&capital(&inspection.subject))));
                page.figure(&inspection.figure);
                let details = inspection.details.iter();
                let details: String = details.map(|d| format!("<p class=\"detail\">{}</p>\n", escape(d))).collect();
                let finding = escape(&inspection.finding);
                page.put(format_args!("<div class=\"finding\">\n<p>{finding}</p>\n{details}</div>\n"));
                page.command(&inspection.command);
            }
            page.put(format_args!("</section>\n"));
        }
    }

    fn write_method(&self, page: &mut Page) {
        page.put(format_args!(
            "<section id=\"method\" aria-labelledby=\"method-title\">\n<h2 id=\"method-title\">How it was measured</h2>\n"
        ));
        for results in &self.sweeps {
            page.put(format_args!("<p>{}</p>\n", escape(&settings(&results.config))));
        }
        if !self.sweeps.is_empty() {
            page.put(format_args!(
                "<p>Training error is measured by a clean pass over the whole training set after the last epoch, with \
                 batch norms in inference mode.</p>\n<p>{}</p>\n",
                escape(RULE)
            ));
        }
        let mut machines: Vec<&Environment> = Vec::new();
        let of_sweeps = self.sweeps.iter().map(|results| &results.environment);
        for environment in of_sweeps.chain(self.inspections.iter().map(|inspection| &inspection.environment)) {
            if !machines.contains(&environment) {
                machines.push(environment);
            }
        }
        page.put(format_args!("<h3>Machine and versions</h3>\n"));
        for machine in machines {
            write_machine(page, machine);
        }
        if self.beside {
            page.put(format_args!(
                "<p>Every training is a row of <a href=\"results.csv\">results.csv</a>; <a href=\"sweep.json\">sweep.json</a> \
                 holds the settings, <a href=\"environment.json\">environment.json</a> the machine.</p>\n"
            ));
        }
        page.put(format_args!(
            "</section>\n</main>\n<footer>\n<p>Written by residual {}.</p>\n</footer>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        ));
    }
}

/// The inspections of a sweep's nets.
fn inside(folder: &Path) -> Result<Vec<Inspection>, LabError> {
    let path: PathBuf = folder.join("inspect");
    if path.is_dir() { Inspection::read_all(&path) } else { Ok(Vec::new()) }
}

/// HTML, and how much of what is in it.
#[derive(Default)]
struct Page {
    text: String,
    sweeps: usize,
    figures: usize,
}

impl Page {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(text);
    }

    fn figure(&mut self, figure: &Figure) {
        self.figures += 1;
        let number = self.figures;
        let narrow = if figure.panels.len() == 1 { " single" } else { "" };
        self.put(format_args!(
            "<figure class=\"chart\" aria-labelledby=\"figure-{number}\">\n<div class=\"panels{narrow}\">\n"
        ));
        figure.panels.iter().for_each(|panel| self.panel(panel));
        let subtitle = match figure.subtitle.trim_end_matches('.') {
            "" => String::new(),
            subtitle => format!(" {}.", escape(&capital(subtitle))),
        };
        self.put(format_args!(
            "</div>\n<figcaption id=\"figure-{number}\"><b>Figure {number}. {}.</b>{subtitle}\
             <span class=\"unseen\"> {}</span></figcaption>\n</figure>\n",
            escape(figure.title.trim_end_matches('.')),
            escape(&figure.description)
        ));
    }

    fn panel(&mut self, panel: &Panel) {
        self.put(format_args!("<div class=\"panel\">\n<p class=\"panel-title\">{}</p>\n", escape(&panel.title)));
        if panel.lines.iter().any(|line| !line.label.is_empty()) {
            self.put(format_args!("<ul class=\"legend\">\n"));
            for (i, line) in panel.lines.iter().enumerate().filter(|(_, line)| !line.label.is_empty()) {
                let (key, label) = (line.key_svg(), escape(&line.label));
                self.put(format_args!("<li data-series=\"{i}\"><span class=\"entry\">{key}{label}</span></li>\n"));
            }
            self.put(format_args!("</ul>\n"));
        }
        self.put(format_args!("<div class=\"plot-box\">{}</div>\n</div>\n", panel.to_svg()));
    }

    fn command(&mut self, command: &str) {
        self.put(format_args!(
            "<p class=\"again\">To measure it again:</p>\n<pre><code>{}</code></pre>\n",
            escape(command)
        ));
    }
}

fn write_table(page: &mut Page, series: &[Series], family: Family) {
    let columns: Vec<&Series> = series.iter().filter(|s| s.family == family).collect();
    let Some(first) = columns.first() else { return };
    let labels: String =
        columns.iter().map(|s| format!("<th scope=\"col\">{}</th>", escape(&capital(&s.label())))).collect();
    let (span, sweep) = (columns.len(), page.sweeps);
    let wide = if span > 2 { " wide" } else { "" };
    page.put(format_args!(
        "<div class=\"scroll{wide}\" tabindex=\"0\" role=\"region\" aria-label=\"Errors of the {family} nets, table {sweep}\">\n<table>\n<thead>\n\
         <tr><th rowspan=\"2\" scope=\"col\">{} layers</th><th colspan=\"{span}\" scope=\"colgroup\">Training error</th>\
         <th colspan=\"{span}\" scope=\"colgroup\">Test error</th></tr>\n<tr>{labels}{labels}</tr>\n</thead>\n<tbody>\n",
        capital(&family.to_string())
    ));
    for (i, point) in first.points.iter().enumerate() {
        let points = || columns.iter().filter_map(|s| s.points.get(i));
        let train = points().map(|p| table::cell(p, p.train));
        let test = points().map(|p| table::cell(p, p.test));
        let cell = |text: String| match text.split_once(" ± ") {
            Some((mean, std)) => format!("<td>{mean} <span class=\"spread\">± {std}</span></td>"),
            None => format!("<td>{}</td>", escape(&text)),
        };
        let cells: String = train.chain(test).map(cell).collect();
        page.put(format_args!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", point.depth));
    }
    page.put(format_args!("</tbody>\n</table>\n</div>\n"));
}

fn write_machine(page: &mut Page, environment: &Environment) {
    let Environment { residual, burn, backend, device, processor, cores, kernels, system } = environment;
    page.put(format_args!("<dl>\n"));
    for (name, value) in [
        ("residual", residual.clone()),
        ("Burn", burn.clone()),
        ("Backend", format!("{backend}, {kernels} kernels")),
        ("Device", device.clone()),
        ("Processor", processor.clone().unwrap_or_else(|| "unknown".into())),
        ("Cores", cores.to_string()),
        ("System", system.clone()),
    ] {
        page.put(format_args!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value)));
    }
    page.put(format_args!("</dl>\n"));
}

/// What tells a sweep from others.
fn subject(config: &SweepConfig) -> String {
    let families: Vec<String> = config.families.iter().map(Family::to_string).collect();
    format!("{} nets on {}", families.join(" and "), config.data)
}

fn settings(config: &SweepConfig) -> String {
    let family = |&f: &Family| {
        let clip = config.clip(f).map(|norm| format!(" and gradients clipped to a norm of {norm}")).unwrap_or_default();
        format!("{f} nets {} epochs with learning rate {}{clip}", config.epochs(f), config.lr(f))
    };
    let families: Vec<String> = config.families.iter().map(family).collect();
    format!(
        "{}: {}; batches of {}, SGD with momentum 0.9 and weight decay 1e-4, learning rate falling as a cosine, norm {}, \
         branch scale {}, seeds {} to {}. Plain and residual nets have the same settings, the same parameters and the \
         same initial weights; the shortcuts have none (option A).",
        capital(&config.data.to_string()),
        families.join(", "),
        config.batch_size,
        config.norm,
        config.branch_scale(),
        config.first_seed,
        config.first_seed + config.seeds.saturating_sub(1)
    )
}

/// With a capital, unless it begins with a name such as `resnet20`.
fn capital(text: &str) -> String {
    if text.split([' ', ',']).next().is_some_and(|word| word.contains(|c: char| c.is_ascii_digit() || c == '_')) {
        return text.into();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        RunResult, RunStatus,
        chart::{Axis, Field, Line},
    };
    use residual_model::{BlockKind, Kernels};
    use residual_train::files;

    fn environment() -> Environment {
        Environment {
            residual: "0.0.1".into(),
            burn: "9.9.9".into(),
            backend: "flex".into(),
            device: "x86_64 CPU, 2 cores".into(),
            processor: Some("Abacus <1>".into()),
            cores: 2,
            kernels: Kernels::Fused,
            system: "linux x86_64".into(),
        }
    }

    fn results() -> Results {
        let config = SweepConfig { families: vec![Family::Dense], depths: Some(vec![4, 56]), ..SweepConfig::default() };
        let run = |spec: &crate::RunSpec| {
            let bad = spec.kind == BlockKind::Plain && spec.depth == 56;
            RunResult {
                spec: *spec,
                train_error: if bad { 0.5 } else { 0.01 },
                test_error: 0.1,
                train_loss: Some(0.1),
                test_loss: None,
                parameters: 1000,
                iterations: 40,
                seconds: 1.0,
                status: RunStatus::Finished,
                curve: (0..40).map(|i| 2.0 - i as f32 / 40.0).collect(),
            }
        };
        let runs = config.plan().iter().map(run).collect();
        Results::new(config, environment(), runs)
    }

    fn inspection(what: What, finding: &str) -> Inspection {
        let line = Line {
            label: "plain & <simple>".into(),
            color: "#d55e00".into(),
            points: vec![(1.0, 1e-3), (2.0, 10.0)],
            ..Line::default()
        };
        let values = vec![0.0, 1.0, 2.0, 3.0];
        let grid = vec![1.0, 2.0];
        let field = Field { xs: grid.clone(), ys: grid, values, range: (0.0, 3.0), label: "loss".into() };
        let (x, y) = (Axis::covering("layer", 1.0, 2.0), Axis::log("gradient", 1e-3, 10.0));
        let panel = |field| Panel { title: "A".into(), x: x.clone(), y: y.clone(), lines: vec![line.clone()], field };
        let figure = Figure {
            title: "Norms".into(),
            subtitle: "one seed".into(),
            description: "They \"grow\".".into(),
            columns: 2,
            panels: vec![panel(None), panel(Some(field))],
        };
        Inspection {
            what,
            subject: "dense-plain4 <fresh>".into(),
            finding: finding.into(),
            details: vec!["Plain & residual.".into()],
            command: "residual inspect gradients --net \"a\"".into(),
            environment: environment(),
            figure,
            table: vec![vec!["layer".into()], vec!["1".into()]],
        }
    }

    /// Everything that would be loaded, or break out of where it stands.
    fn check(page: &str) {
        for word in [" src=", "<link", "@import", "url(", "<simple>", "<fresh>", "<1>"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(!page.split("<script>").next().unwrap().contains("NaN"));
        for tag in ["figure", "section", "main", "svg", "g", "div", "p", "ul", "table", "pre"] {
            let closed = page.matches(&format!("</{tag}>")).count();
            let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, closed, "{tag}");
        }
    }

    #[test]
    fn a_sweep_and_its_inspections_make_one_page() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sweep");
        inspection(What::Landscape, "It is 3 < 4.").write(&folder.join("inspect"), "landscape-dense-plain4").unwrap();
        inspection(What::Gradients, "They grow by 10 %.").write(&folder.join("inspect"), "gradients").unwrap();
        let results = results();
        results.write(&folder).unwrap();
        let page = std::fs::read_to_string(folder.join("index.html")).unwrap();
        check(&page);
        for text in [
            "<h1>Does a deeper net train better?</h1>",
            "<b>Dense nets: shown.</b> Plain nets get worse with depth",
            "50.0 % at 56 (difference 49.0 ± 0.0 points)",
            "residual sweep --family dense --depths 4,56 --explain<",
            "They grow by 10 %.",
            "It is 3 &lt; 4.",
            "<p class=\"detail\">Plain &amp; residual.</p>",
            "residual inspect gradients --net &quot;a&quot;",
            ">dense-plain4 &lt;fresh&gt;",
            "Abacus &lt;1&gt;",
            "9.9.9",
            "href=\"results.csv\"",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!((page.matches("<figure").count(), page.matches("class=\"panel\"").count()), (4, 1 + 2 + 2 + 2));
        assert!(page.find("id=\"gradients\"") < page.find("id=\"landscape\""));
        let report = Report::read(&[&folder]).unwrap();
        let again = report.html();
        check(&again);
        // Only what lies beside the sweep refers to its files, and only runs/ have the curves.
        assert!(!again.contains("results.csv") && !again.contains("Loss during training"));
        assert_eq!(report.sweeps[0].verdicts, results.verdicts);
    }

    #[test]
    fn a_folder_of_inspections_is_a_report_too() {
        let dir = tempfile::tempdir().unwrap();
        inspection(What::Gradients, "They grow.").write(dir.path(), "gradients").unwrap();
        let page = Report::read(&[dir.path()]).unwrap().html();
        check(&page);
        assert!(page.contains("Why do shortcuts help?") && page.contains("1 measurement inside"));
        assert_eq!(page.matches("<figure").count(), 1);
    }

    #[test]
    fn curves_come_from_the_runs_and_other_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let results = results();
        results.write(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("runs")).unwrap();
        for run in &results.runs {
            let stored = serde_json::json!({ "backend": "flex", "config": {}, "result": run });
            files::write_json(&dir.path().join(format!("runs/{}.json", run.spec)), &stored).unwrap();
        }
        let report = Report::read(&[dir.path(), dir.path()]).unwrap();
        assert_eq!(report.sweeps[0].runs, results.runs);
        assert!(report.html().contains("Error against depth, 2: dense nets on digits"));
        let error = |path: &Path| Report::read(&[path]).unwrap_err().to_string();
        assert!(error(&dir.path().join("missing")).contains("is no folder"));
        assert!(error(&dir.path().join("runs")).contains("holds neither a sweep nor an inspection"));
        std::fs::remove_file(dir.path().join("results.json")).unwrap();
        files::write(&dir.path().join("sweep.json"), b"{}").unwrap();
        assert!(error(dir.path()).contains("not finished"));
    }
}
