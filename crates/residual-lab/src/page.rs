use crate::{
    Results,
    chart::{Figure, escape},
    table::markdown_table,
    verdict::NO_VERDICT,
};
use residual_model::Family;

/// One page that shows a sweep, with its pictures inside.
pub(crate) fn render(results: &Results, depth: &Figure, curves: &Figure) -> String {
    let verdicts: String =
        results.verdicts.iter().map(|v| format!("<p class=\"verdict\">{}</p>\n", escape(&v.to_string()))).collect();
    let verdicts = match verdicts.is_empty() {
        true => format!("<p>{NO_VERDICT}</p>\n"),
        false => verdicts,
    };
    let config = &results.config;
    let family = |&f: &Family| format!("{f} nets {} epochs with learning rate {}", config.epochs(f), config.lr(f));
    let families: Vec<String> = config.families.iter().map(family).collect();
    let settings = format!(
        "{} on {}: {}; batches of {}, SGD with momentum 0.9 and weight decay 1e-4, learning rate falling \
         as a cosine, norm {}, branch scale {}, seeds {} to {}. Plain and residual nets have the same settings, the same parameters \
         and the same initial weights; the shortcuts have none (option A).",
        config.data,
        results.environment,
        families.join(", "),
        config.batch_size,
        config.norm,
        config.branch_scale(),
        config.first_seed,
        config.first_seed + config.seeds - 1
    );
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Plain and residual nets by depth</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; }}
h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
svg {{ width: 100%; height: auto; }}
.verdict {{ border-left: 4px solid #0072b2; padding: .2rem .9rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0 1.2rem; }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #d8dde3; white-space: nowrap; }}
code {{ background: #f0f2f5; padding: .1rem .3rem; border-radius: 3px; }}
</style>
</head>
<body>
<h1>Does a deeper net train better?</h1>
<p>Without shortcuts, training error falls with depth and then rises again; with a shortcut around every two layers
it stays down (<a href="https://arxiv.org/abs/1512.03385">He et al. 2015</a>). This is what {runs} trainings on this
machine say.</p>
{verdicts}{depth}
<h2>Error, in per cent</h2>
{tables}
<h2>Loss during training</h2>
{curves}
<h2>How it was measured</h2>
<p>{settings} Training error is measured by a clean pass over the whole training set after the last epoch, with batch
norms in inference mode.</p>
<p>{rule}</p>
<p>Every training is a row of <a href="results.csv">results.csv</a>; <a href="sweep.json">sweep.json</a> holds the
settings, <a href="environment.json">environment.json</a> the machine.</p>
</body>
</html>
"#,
        runs = results.runs.len(),
        depth = depth.to_svg(),
        curves = curves.to_svg(),
        tables = tables(&markdown_table(&results.series)),
        settings = escape(&settings),
        rule = escape(results.rule),
    )
}

/// The Markdown tables as HTML.
fn tables(markdown: &str) -> String {
    let table = |text: &str| {
        let cells = |line: &str, tag: &str| -> String {
            let inner = line.trim_matches('|').split('|').map(|c| format!("<{tag}>{}</{tag}>", escape(c.trim())));
            format!("<tr>{}</tr>\n", inner.collect::<String>())
        };
        let mut lines = text.lines();
        let head = lines.next().map(|line| cells(line, "th")).unwrap_or_default();
        let body: String = lines.skip(1).map(|line| cells(line, "td")).collect();
        format!("<div class=\"scroll\"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>\n")
    };
    markdown.split("\n\n").filter(|t| !t.trim().is_empty()).map(table).collect()
}
