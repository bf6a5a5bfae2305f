//! Tests of pages, folders and sentences, on made-up data.

use crate::{Drawn, InspectionView, Report, draw, draw_inspection, redraw};
use residual_lab::{
    ActivationState, Activations, BlockError, BlockScale, Finding, GradientState, Gradients, Inspection, Landscape,
    LayerGradients, Lesion, LesionErrors, Measured, PathGradients, Paths, RunResult, RunSpec, RunStatus, Shattered,
    SkipStrength, SkipStrengthRun, SubjectInfo, SweepConfig, SweepFamily, SweepResults,
};
use residual_model::{BlockKind, Family, Kernels, Norm};
use residual_train::{DataName, Environment, files};
use std::path::Path;

pub(crate) fn environment() -> Environment {
    Environment {
        residual: "0.0.1".into(),
        burn: "9.9.9".into(),
        backend: "flex".into(),
        device: "x86_64 CPU, 2 cores".into(),
        processor: Some("Abacus <1>".into()),
        cores: 2,
        instructions: Some("AVX2".into()),
        kernels: Kernels::Fused,
        system: "linux x86_64".into(),
    }
}

fn results() -> SweepResults {
    let config = SweepConfig::usual(&[SweepFamily::Dense], DataName::Digits).unwrap().with_depths(&[4, 56]);
    let run = |spec: &RunSpec| RunResult {
        spec: *spec,
        train_error: if spec.kind == BlockKind::Plain && spec.depth == 56 { 0.5 } else { 0.01 },
        test_error: 0.1,
        train_loss: Some(0.1),
        test_loss: None,
        parameters: 1000,
        iterations: 40,
        seconds: 1.0,
        status: RunStatus::Finished,
        curve: (0..40).map(|i| 2.0 - i as f32 / 40.0).collect(),
    };
    let runs = config.plan(&[]).iter().map(run).collect();
    SweepResults::new(config, "residual sweep --out \"a\"".into(), environment(), runs)
}

fn subject(name: &str, kind: BlockKind) -> SubjectInfo {
    let data = "<digits>".into();
    SubjectInfo {
        name: name.into(),
        family: Family::Dense,
        kind,
        depth: 8,
        blocks: 3,
        classes: 10,
        data,
        seed: 0,
        epochs: None,
        weights: None,
        train_error: None,
    }
}

fn inspection(measured: Measured) -> Inspection {
    let subjects = vec![subject("plain & simple", BlockKind::Plain), subject("resnet8", BlockKind::Residual)];
    Inspection { subjects, command: "residual inspect \"a\"".into(), environment: environment(), measured }
}

fn gradients() -> Inspection {
    let layers = ["fc1", "blocks.0.main_path.linear1", "blocks.0.main_path.linear2", "fc"].map(String::from).to_vec();
    let of = |network: usize, norm: Norm, norms: [f64; 2]| LayerGradients {
        network,
        state: GradientState::Initial { norm, seed: 0 },
        norms: vec![9.0, norms[0], norms[1], 9.0],
    };
    let norms = vec![
        of(0, Norm::Batch, [60.0, 2.0]),
        of(0, Norm::None, [1.0, 2.0]),
        of(1, Norm::Batch, [3.0, 2.0]),
        of(1, Norm::None, [f64::NAN, 2.0]),
    ];
    inspection(Measured::Gradients(Gradients { images: 64, inits: 1, layers: vec![layers.clone(), layers], norms }))
}

fn landscape() -> Inspection {
    let losses = vec![vec![9.0, 9.0, 9.0, 9.0, 0.25, f64::NAN, 9.0, 9.0, 9.0], vec![1.0; 9]];
    inspection(Measured::Landscape(Landscape { images: 64, offsets: vec![-1.0, 0.0, 1.0], losses }))
}

/// Checks that a page loads nothing, escapes all text and closes every element.
fn check(page: &str) {
    for word in [" src=", "<link", "@import", "url(", "<digits>", "& simple", "<1>"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(!page.split("<script>").next().unwrap().contains("\"NaN"));
    for tag in ["figure", "section", "main", "svg", "g", "div", "p", "ul", "table", "pre"] {
        let closed = page.matches(&format!("</{tag}>")).count();
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, closed, "{tag}");
    }
}

fn write_sweep(folder: &Path) {
    files::create_dir(folder).unwrap();
    results().write(folder).unwrap();
    for inspection in [gradients(), landscape()] {
        inspection.write(&folder.join("inspect/dense")).unwrap();
    }
}

#[test]
fn a_sweep_and_its_inspections_make_one_page() {
    let dir = tempfile::tempdir().unwrap();
    write_sweep(dir.path());
    redraw(dir.path()).unwrap();
    let page = std::fs::read_to_string(dir.path().join("index.html")).unwrap();
    check(&page);
    for text in [
        "<h1>Does a deeper net train better?</h1>",
        "<b>Dense nets: shown.</b> Plain nets get worse with depth",
        "50.0 % at 56 (difference 49.0 ± 0.0 points, p = 0.05)",
        "residual sweep --out &quot;a&quot;",
        "Loss during training",
        "is 30 times that of the last in plain &amp; simple and 1.5 times in resnet8.",
        "residual inspect &quot;a&quot;",
        "Plain &amp; simple and resnet8 on &lt;digits&gt;, seed 0, untrained",
        "Abacus &lt;1&gt;",
        "9.9.9",
        "href=\"results.csv\"",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!((page.matches("<figure").count(), page.matches("class=\"panel\"").count()), (4, 1 + 2 + 2 + 3));
    assert!(page.find("id=\"gradients\"") < page.find("id=\"landscape\""));
    let elsewhere = Report::read(&[dir.path()]).unwrap().html();
    check(&elsewhere);
    assert!(!elsewhere.contains("results.csv"), "only a page in the sweep's folder links to its files");
}

#[test]
fn everything_is_drawn_from_the_data_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_sweep(dir.path());
    let drawn = draw(dir.path()).unwrap();
    let names: Vec<String> = drawn.iter().map(|drawn| drawn.path.display().to_string()).collect();
    assert_eq!(
        names,
        [
            "inspect/dense/gradients.csv",
            "inspect/dense/gradients.svg",
            "inspect/dense/landscape.csv",
            "inspect/dense/landscape.svg",
            "inspect/dense/findings.md",
            "results.csv",
            "table.md",
            "depth.svg",
            "depth.png",
            "curves.svg",
            "index.html",
        ]
    );
    assert_eq!(draw_inspection(&gradients()).map(|drawn| drawn.content), [0, 1].map(|i| drawn[i].content.clone()));
    redraw(dir.path()).unwrap();
    assert_eq!(draw(dir.path()).unwrap(), drawn);
    for Drawn { path, content } in drawn {
        assert_eq!(std::fs::read(dir.path().join(path)).unwrap(), content);
    }
    let csv = std::fs::read_to_string(dir.path().join("inspect/dense/gradients.csv")).unwrap();
    assert!(csv.contains("resnet8,none,0,initial,2,blocks.0.main_path.linear1,NaN\n"), "{csv}");
    let table = std::fs::read_to_string(dir.path().join("table.md")).unwrap();
    assert!(table.contains("| 56 | 50.00 ± 0.00 | 1.00 ± 0.00 | 10.00 ± 0.00 | 10.00 ± 0.00 |"), "{table}");
    assert_eq!(results().verdicts[0].finding, Finding::Shown);
}

#[test]
fn a_folder_of_inspections_makes_a_page() {
    let dir = tempfile::tempdir().unwrap();
    gradients().write(dir.path()).unwrap();
    let page = Report::read(&[dir.path()]).unwrap().html();
    check(&page);
    assert!(page.contains("Why do shortcuts help?") && page.contains("1 measurement inside"));
    assert_eq!(page.matches("<figure").count(), 1);
    let two = Report::read(&[dir.path(), dir.path()]).unwrap().html();
    assert_eq!(two.matches("<figure").count(), 2);
}

#[test]
fn folders_without_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| Report::read(&[path]).unwrap_err().to_string();
    assert!(error(&dir.path().join("missing")).contains("is not a directory"));
    assert!(error(dir.path()).contains("holds neither a sweep nor an inspection"));
    files::write(&dir.path().join("sweep.json"), b"{}").unwrap();
    assert!(error(dir.path()).contains("holds a sweep.json that no sweep of this version wrote"));
    files::write(&dir.path().join("results.json"), b"{}").unwrap();
    assert!(error(dir.path()).contains("results.json is not usable"));
}

fn words(inspection: &Inspection) -> Vec<String> {
    let InspectionView { finding, details, .. } = InspectionView::of(inspection);
    std::iter::once(finding).chain(details).collect()
}

#[test]
fn findings_state_the_results_in_sentences() {
    assert_eq!(
        words(&gradients()),
        [
            "At initialisation with batch norm, the gradient norm of the blocks' first layer is 30 times that of the last in \
             plain & simple and 1.5 times in resnet8.",
            "plain & simple: towards the input, the gradient grows by a factor of 30.000 per layer with batch norm \
             (covariance: 900.000; theory for wide layers: π/(π-1) = 1.467) and by a factor of 0.500 per layer without \
             batch norm.",
            "resnet8: towards the input, the gradient grows by a factor of 1.500 per layer with batch norm and by a factor \
             that is NaN or infinite per layer without batch norm.",
        ]
    );
    assert_eq!(
        words(&landscape()),
        [
            "The loss is below that of random guessing on 11 % of the square around the weights in plain & simple and 100 % \
             in resnet8.",
            "plain & simple: the loss is 0.250 at the weights and at most 9.0 in the square (NaN or infinite at 1 point); \
             random guessing has a loss of 2.30.",
            "resnet8: the loss is 1.000 at the weights and at most 1.0 in the square; random guessing has a loss of 2.30.",
        ]
    );
    let block = |ratio| BlockScale { name: "blocks.0".into(), output: 2.0, ratio, responses: vec![1.0, 3.0] };
    let state = |network, trained, ratio| ActivationState { network, trained, blocks: vec![block(ratio)] };
    let states = vec![state(0, false, 1.0), state(1, false, 0.5), state(1, true, 0.25)];
    assert_eq!(
        words(&inspection(Measured::Activations(Activations { images: 64, states })))[0],
        "The median ratio of a block's main-path norm to its input norm is 1.00 in plain & simple at initialisation and \
         0.25 in resnet8."
    );
    let errors = |intact| LesionErrors {
        intact,
        without_block: vec![
            BlockError { block: "blocks.0".into(), error: 0.25 },
            BlockError { block: "blocks.1".into(), error: 0.75 },
        ],
        removed: vec![vec![0.5, 0.5], vec![0.9]],
        swapped: vec![vec![0.25]],
    };
    assert_eq!(
        words(&inspection(Measured::Lesion(Lesion {
            images: 64,
            draws: 2,
            networks: vec![errors(0.0), errors(0.125)]
        }))),
        [
            "On average, removing one block changes the error on 64 test images from 0.0 to 50.0 % in plain & simple and \
             from 12.5 to 50.0 % in resnet8.",
            "plain & simple: the test error is 0.0 % intact, 50.0 % on average without one block (at most 75.0 %, without \
             blocks.1), 90.0 % without 2 of 2 blocks and 25.0 % with two blocks swapped.",
            "resnet8: the test error is 12.5 % intact, 50.0 % on average without one block (at most 75.0 %, without \
             blocks.1), 90.0 % without 2 of 2 blocks and 25.0 % with two blocks swapped.",
        ]
    );
    let run = |alpha, train_error| SkipStrengthRun {
        network: 0,
        alpha,
        seed: 0,
        train_error,
        test_error: 0.5,
        diverged: train_error == 1.0,
    };
    let runs = vec![run(0.0, 1.0), run(1.0, 0.25)];
    let networks = vec!["resnet8".into()];
    assert_eq!(
        words(&inspection(Measured::Alpha(SkipStrength { seeds: 1, alphas: vec![0.0, 1.0], networks, runs }))),
        [
            "The mean training error is 100.0 % at α = 0 and 25.0 % at α = 1 in resnet8.",
            "resnet8: training error 100.0 % at α = 0, 25.0 % at α = 1. 1 training diverged and counted as 100 %.",
        ]
    );
    let of = |norms: [f64; 4]| PathGradients {
        network: 1,
        lengths: vec![0, 1, 2, 3],
        norms: norms.map(|n| vec![n]).to_vec(),
    };
    let paths = |norms| inspection(Measured::Paths(Paths { images: 64, draws: 1, networks: vec![of(norms)] }));
    assert_eq!(
        words(&paths([1.0; 4])),
        [
            "Paths through 0 to 3 of the 3 blocks in resnet8 carry 95 % of the gradient at the input.",
            "resnet8: the mean path passes through 1.5 of 3 blocks, an effective depth of 5 of 8 layers.",
            "A plain net has a single path, through all its blocks.",
        ]
    );
    assert_eq!(
        words(&paths([0.0; 4]))[..2],
        ["No gradient reaches the input.", "resnet8: no gradient reaches the input."]
    );
    // At lags k up to 64, the autocorrelation of a square wave with half-period 64 is 1 - 7k/256, below 1/2 from k = 19.
    let wave = |half_period: usize| {
        (0..Shattered::POINTS).map(|i| if (i / half_period).is_multiple_of(2) { 1.0 } else { -1.0 }).collect()
    };
    let derivatives = vec![vec![wave(1)], vec![wave(64)]];
    assert_eq!(
        words(&inspection(Measured::Shattered(Shattered { lines: 1, derivatives }))),
        [
            "The correlation of the gradients at neighbouring inputs, 0.016 apart, is -1.00 in plain & simple and 0.97 in \
             resnet8.",
            "plain & simple: the correlation of neighbours is -1.00; it falls below 1/2 at a distance of 0.02.",
            "resnet8: the correlation of neighbours is 0.97; it falls below 1/2 at a distance of 0.30.",
        ]
    );
    let constant = Shattered { lines: 1, derivatives: vec![vec![vec![0.0; Shattered::POINTS]]; 2] };
    let view = InspectionView::of(&inspection(Measured::Shattered(constant)));
    assert_eq!(view.finding, "Along every line, the gradient is constant, NaN or infinite.");
    assert!(!view.svg().replace(&view.finding, "").contains("NaN"));
}
