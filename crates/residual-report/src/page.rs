//! An HTML page of sweeps and measurements inside networks.

use crate::{
    InspectionView, ReportError,
    chart::{Figure, Panel, escape},
    contents::Contents,
    figures, inspect,
    sweep::{at_the_edge, no_verdict, panels, settings, subject, with_setting},
    table, verdict,
    words::{capital, counted, described},
};
use residual_lab::{Inspection, Measurement, Series, Setting, SweepFamily, SweepResults, Tuned, Verdict};
use residual_train::{Environment, shown};
use std::{fmt::Write, path::Path};

/// The start of the page's last paragraph.
const FOOTER: &str = "<p>Written by residual";
const STYLE: &str = include_str!("../assets/report.css");
const SCRIPT: &str = include_str!("../assets/report.js");

/// The sweeps and inspections shown on one page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    sweeps: Vec<SweepResults>,
    inspections: Vec<Inspection>,
    /// Whether the page is written into the sweep's folder, next to its other files.
    in_sweep_folder: bool,
}

impl Report {
    /// Reads folders, each with a sweep and its inspections, with inspections alone, or with a training run. The runs
    /// together are summarised like a sweep ([`SweepResults::of_runs`]). Nothing is written.
    ///
    /// # Errors
    /// If a folder holds none of these, a file is damaged, or the runs do not belong together.
    pub fn read<P: AsRef<Path>>(folders: &[P]) -> Result<Self, ReportError> {
        let mut report = Self::default();
        let is_run = |folder: &&P| {
            let has = |name| folder.as_ref().join(name).exists();
            has("config.json") && !has("sweep.json") && !has("results.json")
        };
        let runs: Vec<&P> = folders.iter().filter(is_run).collect();
        if !runs.is_empty() {
            report.sweeps.push(SweepResults::of_runs(&runs)?);
        }
        for folder in folders.iter().filter(|folder| !is_run(folder)) {
            let Contents { sweep, inspections } = Contents::read(folder.as_ref())?;
            report.sweeps.extend(sweep);
            report.inspections.extend(inspections.into_iter().flat_map(|(_, inspections)| inspections));
        }
        Ok(report)
    }

    /// The page of these sweeps and inspections. Inspections that are not [complete](Inspection::is_complete) are left
    /// out.
    pub fn of(sweeps: Vec<SweepResults>, mut inspections: Vec<Inspection>) -> Self {
        inspections.retain(Inspection::is_complete);
        Self { sweeps, inspections, in_sweep_folder: false }
    }

    /// The page of one sweep, to be written into its folder.
    pub(crate) fn in_folder(sweep: SweepResults, inspections: Vec<Inspection>) -> Self {
        Self { sweeps: vec![sweep], inspections, in_sweep_folder: true }
    }

    /// Whether a page was written by [`Self::html`].
    pub fn is_own(html: &str) -> bool {
        html.contains(FOOTER)
    }

    /// The page as HTML. It needs no other files and no network access.
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
        let (title, question) = if self.sweeps.is_empty() {
            ("Measurements inside plain and residual nets", "Why do shortcuts help?")
        } else {
            ("Plain and residual nets by depth", "Does a deeper net train better?")
        };
        let paper = "<a href=\"https://arxiv.org/abs/1512.03385\">He et al. 2015</a>";
        let claim = format!(
            "Without shortcuts, the training error of a network falls with depth and then rises again; with a shortcut \
             around every two layers it stays low ({paper})."
        );
        let answer = match (runs, self.inspections.len()) {
            (0, n) => format!("This page shows {} inside networks.", counted(n, "measurement")),
            (runs, 0) => format!("This page shows the results of {}.", counted(runs, "training")),
            (runs, n) => format!(
                "This page shows the results of {}, and {} inside the networks to explain them.",
                counted(runs, "training"),
                counted(n, "measurement")
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
        let found = self.measurements();
        if self.sweeps.len() + found.len() > 1 {
            page.put(format_args!("<nav aria-label=\"Contents\">\n<ul>\n"));
            for (i, results) in self.sweeps.iter().enumerate() {
                let (number, title) = (i + 1, escape(&self.sweep_title(i + 1, results)));
                page.put(format_args!("<li><a href=\"#sweep-{number}\">{title}</a></li>\n"));
            }
            for measurement in found {
                page.put(format_args!("<li><a href=\"#{measurement}\">{}</a></li>\n", inspect::title(measurement)));
            }
            page.put(format_args!("<li><a href=\"#method\">How it was measured</a></li>\n</ul>\n</nav>\n"));
        }
        page.put(format_args!("</header>\n<main>\n"));
    }

    /// The measurements on the page, in the order in which it shows them.
    fn measurements(&self) -> Vec<Measurement> {
        let found = |measurement: &&Measurement| self.inspections.iter().any(|i| i.measurement() == **measurement);
        Measurement::ALL.iter().filter(found).copied().collect()
    }

    fn sweep_title(&self, number: usize, results: &SweepResults) -> String {
        match self.sweeps.len() {
            1 => "Error against depth".into(),
            _ => format!("Error against depth, {number}: {}", subject(&results.config)),
        }
    }

    fn write_sweep(&self, page: &mut Page, results: &SweepResults) {
        page.sweeps += 1;
        let number = page.sweeps;
        page.put(format_args!("<section id=\"sweep-{number}\" aria-labelledby=\"sweep-{number}-title\">\n"));
        let title = self.sweep_title(number, results);
        page.put(format_args!("<h2 id=\"sweep-{number}-title\">{}</h2>\n", escape(&title)));
        page.figure(&figures::depth(results));
        page.put(format_args!("<h3>Verdict</h3>\n"));
        for sentence in verdict::across(&results.verdicts) {
            page.put(format_args!("<p>{}</p>\n", escape(&sentence)));
        }
        for verdict in &results.verdicts {
            let (answer, reason) = verdict::finding(verdict);
            page.put(format_args!(
                "<div class=\"finding\">\n<p><b>{}: {answer}.</b>{reason}</p>\n<p class=\"detail\">{}</p>\n</div>\n",
                capital(&verdict::nets(verdict)),
                verdict::detail(verdict)
            ));
        }
        if results.verdicts.is_empty() {
            page.put(format_args!("<p>{}</p>\n", no_verdict(results)));
        }
        page.put(format_args!("<h3>Error, in per cent</h3>\n"));
        if results.config.seeds > 1 {
            let seeds = results.config.seeds;
            page.put(format_args!("<p class=\"note\">Mean ± standard deviation over {seeds} seeds.</p>\n"));
        }
        for (family, setting) in panels(results) {
            write_table(page, &results.series, family, setting);
        }
        write_rates(page, &results.tuned);
        if !results.curves.is_empty() {
            page.put(format_args!("<h3>Loss during training</h3>\n"));
            page.figure(&figures::curves(results));
        }
        page.command(&results.command);
        page.put(format_args!("</section>\n"));
    }

    fn write_inspections(&self, page: &mut Page) {
        for measurement in self.measurements() {
            page.put(format_args!(
                "<section id=\"{measurement}\" aria-labelledby=\"{measurement}-title\">\n\
                 <h2 id=\"{measurement}-title\">{}</h2>\n<p>{}</p>\n",
                escape(inspect::title(measurement)),
                escape(inspect::explanation(measurement))
            ));
            for inspection in self.inspections.iter().filter(|inspection| inspection.measurement() == measurement) {
                let subjects = capital(&described(&inspection.subjects));
                page.put(format_args!("<h3 class=\"subject\">{}</h3>\n", escape(&subjects)));
                let view = InspectionView::of(inspection);
                page.figure(&view.figure);
                let details = view.details.iter();
                let details: String = details.map(|d| format!("<p class=\"detail\">{}</p>\n", escape(d))).collect();
                let finding = escape(&view.finding);
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
                "<p>The training error is measured by a clean pass over the whole training set after the last epoch, with \
                 batch norm in inference mode.</p>\n<p>{}</p>\n",
                escape(Verdict::RULE)
            ));
        }
        if self.sweeps.iter().any(|results| !results.tuned.is_empty()) {
            page.put(format_args!("<p>{}</p>\n", escape(Tuned::RULE)));
        }
        let mut machines: Vec<&Environment> = Vec::new();
        let of_sweeps = self.sweeps.iter().flat_map(|results| &results.environments);
        for environment in of_sweeps.chain(self.inspections.iter().map(|inspection| &inspection.environment)) {
            if !machines.contains(&environment) {
                machines.push(environment);
            }
        }
        page.put(format_args!("<h3>Machine and versions</h3>\n"));
        for results in self.sweeps.iter().filter(|results| results.machines > 1) {
            let trainings = counted(results.runs.len(), "training");
            page.put(format_args!("<p>{trainings} ran on {} machines.</p>\n", results.machines));
        }
        for machine in machines {
            write_machine(page, machine);
        }
        if self.in_sweep_folder {
            page.put(format_args!(
                "<p><a href=\"results.csv\">results.csv</a> has one row per training, and <a \
                 href=\"curves.csv\">curves.csv</a> has the loss curves. <a href=\"results.json\">results.json</a> also has \
                 the settings, the verdicts and the machine. A sweep has the run directory of each training in \
                 <code>runs/</code>; <code>residual train --config runs/NAME/config.json</code> repeats one alone.</p>\n"
            ));
        }
        page.put(format_args!(
            "</section>\n</main>\n<footer>\n{FOOTER} {}.</p>\n</footer>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        ));
    }
}

/// The HTML written so far, and the numbers of its sweeps and figures.
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
        if command.is_empty() {
            return;
        }
        self.put(format_args!("<p class=\"again\">To reproduce:</p>\n<pre><code>{}</code></pre>\n", escape(command)));
    }
}

fn write_table(page: &mut Page, series: &[Series], family: SweepFamily, setting: Setting) {
    let columns: Vec<&Series> = series.iter().filter(|s| (s.family, s.setting) == (family, setting)).collect();
    let nets = escape(&with_setting(&format!("{family} nets"), setting));
    if setting != Setting::default() {
        page.put(format_args!("<p class=\"note\">{}</p>\n", capital(&nets)));
    }
    let labels: String =
        columns.iter().map(|s| format!("<th scope=\"col\">{}</th>", escape(&capital(&s.label())))).collect();
    let (span, sweep) = (columns.len(), page.sweeps);
    let wide = if span > 2 { " wide" } else { "" };
    page.put(format_args!(
        "<div class=\"scroll{wide}\" tabindex=\"0\" role=\"region\" aria-label=\"Errors of the {nets}, table {sweep}\">\n<table>\n<thead>\n\
         <tr><th rowspan=\"2\" scope=\"col\">{} layers</th><th colspan=\"{span}\" scope=\"colgroup\">Training error</th>\
         <th colspan=\"{span}\" scope=\"colgroup\">Test error</th></tr>\n<tr>{labels}{labels}</tr>\n</thead>\n<tbody>\n",
        capital(&family.to_string())
    ));
    for (depth, cells) in table::error_rows(&columns) {
        let cell = |text: String| match text.split_once(" ± ") {
            Some((mean, std)) => format!("<td>{mean} <span class=\"spread\">± {std}</span></td>"),
            None => format!("<td>{}</td>", escape(&text)),
        };
        let cells: String = cells.into_iter().map(cell).collect();
        page.put(format_args!("<tr><th scope=\"row\">{depth}</th>{cells}</tr>\n"));
    }
    page.put(format_args!("</tbody>\n</table>\n</div>\n"));
}

/// The learning rates of the grid and their mean training errors.
fn write_rates(page: &mut Page, tuned: &[Tuned]) {
    if tuned.is_empty() {
        return;
    }
    let (number, edge) = (page.sweeps, escape(&at_the_edge(tuned)));
    page.put(format_args!(
        "<h3>Learning rates</h3>\n<p class=\"note\">Mean training error over all depths and both kinds, in per cent, with \
         the first seed; the chosen rate is bold.{edge}</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Errors by learning \
         rate, table {number}\">\n<table>\n<thead>\n<tr><th scope=\"col\">Nets</th><th scope=\"col\">Learning rate</th><th \
         scope=\"col\">Training error</th></tr>\n</thead>\n<tbody>\n"
    ));
    for Tuned { family, setting, rates, lr } in tuned {
        let nets = escape(&with_setting(&format!("{family} nets"), *setting));
        for rate in rates {
            let [start, end] = if rate.lr == *lr { ["<b>", "</b>"] } else { [""; 2] };
            page.put(format_args!(
                "<tr><th scope=\"row\">{}</th><td>{start}{}{end}</td><td>{start}{:.2}{end}</td></tr>\n",
                capital(&nets),
                rate.lr,
                100.0 * rate.train_error
            ));
        }
    }
    page.put(format_args!("</tbody>\n</table>\n</div>\n"));
}

fn write_machine(page: &mut Page, environment: &Environment) {
    let Environment { residual, burn, backend, device, processor, cores, instructions, kernels, system } = environment;
    page.put(format_args!("<dl>\n"));
    let instructions = instructions.as_ref().map_or_else(String::new, |name| format!(", {name} instructions"));
    for (name, value) in [
        ("residual", residual.clone()),
        ("Burn", burn.clone()),
        ("Backend", format!("{backend}, {kernels} kernels")),
        ("Device", device.clone()),
        ("Processor", processor.clone().unwrap_or_else(|| "unknown".into()) + &instructions),
        ("Cores", cores.to_string()),
        ("System", system.clone()),
    ] {
        page.put(format_args!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&shown(&value))));
    }
    page.put(format_args!("</dl>\n"));
}
