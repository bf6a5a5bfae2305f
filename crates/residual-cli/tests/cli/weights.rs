//! Weights: prediction, evaluation, conversion, download, fine-tuning.

use super::{command, refuses, succeeds, text};
use image::{GrayImage, ImageEncoder, Luma, codecs::jpeg::JpegEncoder};
use residual_data::{DataName, Source};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::OnceLock,
};
use tempfile::TempDir;

/// The directory of a finished run of `dense-resnet8` on digits.
fn run() -> String {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let dir = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run").display().to_string();
        succeeds(&["train", "--net", "dense-resnet8", "--epochs", "4", "--out", &out]);
        dir
    });
    dir.path().join("run").display().to_string()
}

/// Writes a test image of the digits as a PNG file and returns its label.
fn write_digit(index: usize, path: &Path) -> usize {
    let (_, test) = DataName::Digits.images().unwrap();
    let mut pixels = vec![0.0; 64];
    let label = test.read(index, &mut pixels).unwrap();
    let at = |x: u32, y: u32| Luma([(pixels[(y * 8 + x) as usize] * 255.0).round() as u8]);
    GrayImage::from_fn(8, 8, at).save(path).unwrap();
    label
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&succeeds(args).0).unwrap()
}

#[test]
fn models_lists_the_published_parameter_counts() {
    let (table, _) = succeeds(&["models"]);
    let line =
        |name: &str| table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap().to_string();
    assert!(line("resnet50").contains("25,557,032") && line("resnet50").contains("4,089,184,256"));
    assert!(line("resnet20").contains("269,722") && line("preact_resnet1001").contains(" 1001 "));
    assert!(line("wide_resnet50_2").ends_with("wide_resnet50_2 wide_resnet50_2.v2"));
    let models = json(&["models", "--json"]);
    assert!(models.as_array().unwrap().iter().any(|m| m["name"] == "resnet18" && m["parameters"] == 11_689_512));
}

#[test]
fn predict_and_eval_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (report, _) = succeeds(&["eval", "--weights", &run(), "--predictions", &path("all.txt")]);
    let predicted: Vec<usize> =
        fs::read_to_string(path("all.txt")).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(predicted.len(), 360);
    let labels = DataName::Digits.images().unwrap().1;
    let wrong = predicted.iter().zip(labels.labels()).filter(|(p, l)| **p != usize::from(**l)).count();
    assert!(report.starts_with(&format!("test error {:.2} %\n", 100.0 * wrong as f64 / 360.0)), "{report}");
    assert!(report.contains("top-5 error 0.") && report.contains("true class (row)"));
    let same = json(&["eval", "--weights", &run(), "--json"]);
    assert!((same["error"].as_f64().unwrap() - wrong as f64 / 360.0).abs() < 1e-12);
    let diagonal: u64 = (0..10).map(|c| same["confusion"][c][c].as_u64().unwrap()).sum();
    assert_eq!(diagonal as usize, 360 - wrong);

    let images: Vec<String> = (0..8).map(|i| path(&format!("{i}.png"))).collect();
    for (i, image) in images.iter().enumerate() {
        write_digit(i, Path::new(image));
    }
    let mut args = vec!["predict", "--json", "--top", "3", "--weights"];
    let run = run();
    args.push(&run);
    args.extend(images.iter().map(String::as_str));
    let predictions = json(&args);
    for (prediction, class) in predictions.as_array().unwrap().iter().zip(&predicted) {
        let top = prediction["top"].as_array().unwrap();
        assert_eq!((top.len(), top[0]["class"].as_u64()), (3, Some(*class as u64)));
        assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
    }
}

#[test]
fn corrupt_images_are_reported_and_the_others_classified() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let label = write_digit(3, Path::new(&path("good.png")));
    fs::write(path("bad.png"), &fs::read(path("good.png")).unwrap()[..40]).unwrap();
    fs::write(path("text.png"), "not an image").unwrap();
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    fs::write(path("labels.txt"), names.join("\n")).unwrap();
    let args = ["predict", "--weights", &run(), "--labels", &path("labels.txt"), "--top", "1"];
    GrayImage::new(1, 60_000).save(path("long.png")).unwrap();
    let images = [path("bad.png"), path("text.png"), path("long.png"), path("good.png"), path("missing.png")];
    let output = command(&args).args(&images).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(stdout.contains("good.png") && stdout.trim_end().ends_with(names[label]), "{stdout}");
    for expected in [
        "bad.png is not a valid image",
        "text.png is neither PNG, JPEG",
        "missing.png cannot be read",
        "long.png is 1x60000 pixels",
        "4 of 5",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    fs::write(path("labels.txt"), "one\n").unwrap();
    refuses(&["predict", "--weights", &run(), "--labels", &path("labels.txt"), &images[3]], 2, "has 1 lines");
}

/// Writes a JPEG file, with an EXIF orientation that says it is stored upside down or without one.
fn write_photo(image: &GrayImage, upside_down: bool, path: &Path) {
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
    if upside_down {
        // Big-endian EXIF with the orientation 3.
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0".to_vec();
        encoder.set_exif_metadata(exif).unwrap();
    }
    encoder.encode_image(image).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, jpeg).unwrap();
}

#[test]
fn photos_are_turned_upright_unless_no_exif_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    write_digit(3, Path::new(&path("digit.png")));
    let digit = image::open(path("digit.png")).unwrap().to_luma8();
    write_photo(&digit, true, Path::new(&path("photo.jpg")));
    write_photo(&digit, false, Path::new(&path("stored.jpg")));
    image::open(path("stored.jpg")).unwrap().rotate180().save(path("upright.png")).unwrap();
    let top = |image: &str, flags: &[&str]| {
        let (run, image) = (run(), path(image));
        let args = [&["predict", "--weights", &run, "--json", &image], flags].concat();
        json(&args)[0]["top"].clone()
    };
    assert_eq!(top("photo.jpg", &[]), top("upright.png", &[]));
    assert_eq!(top("photo.jpg", &["--no-exif"]), top("stored.jpg", &[]));
    assert_ne!(top("photo.jpg", &[]), top("stored.jpg", &[]));
}

#[test]
fn eval_reads_photos_as_the_card_of_the_weights_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    write_digit(3, Path::new(&path("digit.png")));
    let digit = image::open(path("digit.png")).unwrap().to_luma8();
    for split in ["train", "val"] {
        write_photo(&digit, true, Path::new(&path(&format!("photos/{split}/0/1.jpg"))));
        write_photo(&digit, false, Path::new(&path(&format!("stored/{split}/0/1.jpg"))));
    }
    let weights = path("weights.safetensors");
    succeeds(&["convert", &run(), &weights]);
    let labels = path("labels.txt");
    fs::write(&labels, (0..10).map(|digit| format!("{digit}\n")).collect::<String>()).unwrap();
    let loss = |folder: &str| {
        let folder = path(folder);
        let args = ["eval", "--weights", &weights, "--data", "folder", "--data-dir", &folder, "--side", "8", "--json"];
        json(&[&args[..], &["--labels", &labels]].concat())["loss"].clone()
    };
    assert_ne!(loss("photos"), loss("stored"));
    let card = format!("{weights}.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&card).unwrap()).unwrap();
    json["preprocessing"]["ignore_exif"] = true.into();
    fs::write(&card, json.to_string()).unwrap();
    assert_eq!(loss("photos"), loss("stored"));
}

#[test]
fn nan_scores_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (good, nan, image) = (path("good.safetensors"), path("nan.safetensors"), path("0.png"));
    succeeds(&["convert", &run(), &good]);
    let mut bytes = fs::read(&good).unwrap();
    let end = bytes.len();
    // The last tensor of the file is `linear1.weight`.
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&nan, bytes).unwrap();
    fs::copy(format!("{good}.json"), format!("{nan}.json")).unwrap();
    write_digit(0, Path::new(&image));
    refuses(&["eval", "--weights", &nan], 1, "the network's scores for sample 0");
    let output = command(&["predict", "--weights", &nan, "--json", &image]).output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("scores are NaN or infinite"));
}

#[cfg(unix)]
#[test]
fn image_names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    let output = command(&["predict", "--json", "--weights", &run()]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn converted_weights_give_the_same_results() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (a, b, c) = (path("a.safetensors"), path("b.bpk"), path("c.safetensors"));
    succeeds(&["convert", &run(), &a]);
    succeeds(&["convert", &a, &b]);
    succeeds(&["convert", &b, &c]);
    assert_eq!(fs::read(&a).unwrap(), fs::read(&c).unwrap());
    let eval = |weights: &str| succeeds(&["eval", "--weights", weights, "--mean", "0.3", "--std", "0.4"]).0;
    assert_eq!(eval(&b), eval(&run()));
    refuses(&["convert", &a, &b], 2, "exists; replace it with --force");
    refuses(&["convert", &a, &path("d.pth")], 2, "a name that ends in .safetensors, .bpk or .onnx");
    // A file without its card needs only the network's name.
    fs::copy(&a, path("bare.safetensors")).unwrap();
    refuses(&["eval", "--weights", &path("bare.safetensors")], 2, "give it with --net");
    let bare = succeeds(&["eval", "--weights", &path("bare.safetensors"), "--net", "dense-resnet8"]).0;
    assert_eq!(bare, succeeds(&["eval", "--weights", &run()]).0);
    refuses(&["eval", "--weights", &a, "--net", "dense-resnet6"], 2, "holds dense-resnet8, not dense-resnet6");
    let bare_as =
        |net: &str| ["eval".into(), "--weights".into(), path("bare.safetensors"), "--net".into(), net.to_string()];
    refuses(&bare_as("dense-resnet6").each_ref().map(String::as_str), 1, "unknown: blocks.2.bn1.bias");
    refuses(&bare_as("dense-resnet10").each_ref().map(String::as_str), 1, "missing: blocks.3.bn1.bias");
    refuses(&bare_as("resnet1202").each_ref().map(String::as_str), 1, "bytes of values, but resnet1202 has");
    refuses(&["eval", "--weights", &a, "--mean", "0", "--std", "0"], 2, "std positive");
    refuses(&["eval", "--weights", &a, "--mean", "0"], 2, "--mean and --std must be given together");
    // Replacing a file replaces its card.
    succeeds(&["train", "--net", "dense-plain4", "--epochs", "1", "--out", &path("other")]);
    succeeds(&["convert", &path("other"), &a, "--force"]);
    assert!(succeeds(&["eval", "--weights", &a]).0.contains("dense-plain4"));
    refuses(&["eval", "--weights", &path("missing.bpk"), "--net", "resnet8"], 1, "cannot read");
    refuses(&["eval"], 2, "no weights given");
}

/// `scripts/check-onnx` runs such models.
#[test]
fn networks_are_written_as_onnx_and_with_half_precision() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (onnx, half, full) = (path("net.onnx"), path("half.safetensors"), path("full.safetensors"));
    let length = |path: &str| fs::metadata(path).unwrap().len();
    let (stdout, _) = succeeds(&["convert", &run(), &onnx, "--preprocess", "--softmax"]);
    assert!(stdout.ends_with("net.onnx: dense-resnet8 with 30,218 parameters\n"), "{stdout}");
    let full_length = length(&onnx);
    refuses(&["convert", &run(), &onnx], 2, "exists; replace it with --force");
    succeeds(&["convert", &run(), &onnx, "--force", "--half", "--keep-norms"]);
    assert!((length(&onnx) as f64) < 0.6 * full_length as f64);

    succeeds(&["convert", &run(), &full]);
    succeeds(&["convert", &run(), &half, "--half"]);
    assert!((length(&half) as f64) < 0.6 * length(&full) as f64);
    let eval = |weights: &str| succeeds(&["eval", "--weights", weights]).0;
    assert_eq!(eval(&half).lines().next(), eval(&full).lines().next());

    refuses(&["convert", &run(), &path("net.bpk"), "--half"], 2, "--half is for .safetensors and .onnx, not for");
    refuses(&["convert", &run(), &path("a.safetensors"), "--softmax"], 2, "--softmax is for ONNX models");
    refuses(&["convert", &run(), &path("no-folder/net.onnx")], 1, "cannot write");
    fs::copy(&full, path("bare.safetensors")).unwrap();
    let bare = path("bare.safetensors");
    let args = ["convert", &bare, &path("bare.onnx"), "--net", "dense-resnet8", "--preprocess"];
    refuses(&args, 2, "--preprocess needs the preprocessing of the images, which");
    succeeds(&["convert", &bare, &path("bare.onnx"), "--net", "dense-resnet8"]);
    assert!(
        fs::read_dir(dir.path()).unwrap().all(|entry| !entry.unwrap().path().display().to_string().ends_with("tmp"))
    );
}

#[test]
fn weights_of_a_file_are_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (weights, out) = (path("net.safetensors"), path("inspect"));
    succeeds(&["convert", &run(), &weights]);
    let (stdout, stderr) = succeeds(&["inspect", &weights, "--images", "64", "--inits", "1", "--out", &out]);
    assert!(stderr.contains("dense-resnet8 on synthetic, with the weights of net.safetensors"), "{stderr}");
    assert!(stdout.contains("gradients.svg") && stdout.contains("activations.svg"), "{stdout}");
    refuses(&["inspect", &weights, "--what", "lesion"], 2, "lesion needs images with labels; name the dataset of");
    refuses(&["inspect", &weights, "--what", "alpha"], 2, "the training of net.safetensors is not known");
    refuses(&["inspect", &weights, "--lr", "0.1"], 2, "--seed, --epochs and --lr are for networks given by name");
    // The same images and weights as those of the run.
    let lesion = |subject: &str, more: &[&str]| {
        let out = path("lesion");
        let args = [&["inspect", subject, "--what", "lesion", "--out", &out], more].concat();
        succeeds(&args);
        fs::read_to_string(path("lesion/lesion.csv")).unwrap()
    };
    assert_eq!(lesion(&weights, &["--data", "digits"]), lesion(&run(), &[]));
}

#[test]
fn fine_tuning_starts_from_weights_and_keeps_frozen_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let start = path("start.safetensors");
    succeeds(&["convert", &run(), &start]);
    let tune = ["train", "--net", "dense-resnet8", "--data", "synthetic", "--epochs", "1", "--weights", &start];
    let tuned = path("tuned");
    let frozen =
        ["--freeze", "stem,layer1", "--part-lr", "head=2", "--no-norm-decay", "--ignore-head", "--out", &tuned];
    succeeds(&[&tune[..], &frozen].concat());
    let end = path("end.safetensors");
    succeeds(&["convert", &tuned, &end]);
    let tensors = |path: &str| fs::read(path).unwrap();
    let (start_bytes, end_bytes) = (tensors(&start), tensors(&end));
    let values = |bytes: &[u8], name: &str| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        file.tensor(name).unwrap().data().to_vec()
    };
    for name in ["linear1.weight", "bn1.running_mean", "blocks.2.bn2.weight", "blocks.0.bn1.running_var"] {
        assert_eq!(values(&start_bytes, name), values(&end_bytes, name), "{name}");
    }
    assert_ne!(values(&start_bytes, "fc.weight"), values(&end_bytes, "fc.weight"));
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path("tuned/config.json")).unwrap()).unwrap();
    assert_eq!(config["start"]["weights"], start.as_str());
    assert_eq!(config["start"]["ignore_head"], true);
    // The configuration alone reproduces the run.
    let again = path("again");
    succeeds(&["train", "--config", &path("tuned/config.json"), "--out", &again]);
    let end_again = path("end-again.safetensors");
    succeeds(&["convert", &again, &end_again]);
    assert_eq!(fs::read(&end_again).unwrap(), fs::read(&end).unwrap());
    assert_eq!(config["freeze"], serde_json::json!(["stem", "layer1"]));
    let other = ["train", "--net", "dense-resnet6", "--weights", &start, "--out", &path("other")];
    refuses(&other, 1, "does not fit the network");
    assert!(!Path::new(&path("other")).exists());
}

/// Starts a server that gives each connection the next answer, and returns its URL.
fn serve(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    format!("http://{address}")
}

#[test]
fn a_failed_download_names_the_cause_and_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let fetch = |mirror: &str, name: &str| {
        let output = command(&["weights", "fetch", name])
            .env("RESIDUAL_MIRROR", mirror)
            .env("RESIDUAL_CACHE", dir.path())
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let file = dir.path().join("weights/resnet18-f37072fd.pth");
    let body = |status: &str, length: usize, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
    };
    let (code, stderr) = fetch(&serve(vec![body("200 OK", 5, "wrong")]), "resnet18");
    assert!(code == Some(1) && stderr.contains("is not the expected file") && stderr.contains("f37072fd"), "{stderr}");
    assert!(!file.exists());
    let (code, stderr) = fetch(&serve(vec![body("200 OK", 46_830_571, "cut"); 8]), "resnet18");
    assert!(
        code == Some(1)
            && stderr.contains("interrupted after 3 of 46830571 bytes")
            && stderr.contains("try again to resume it"),
        "{stderr}"
    );
    assert!(!file.exists());
    let (code, stderr) = fetch(&serve(vec![body("404 Not Found", 0, "")]), "resnet50.v2");
    assert!(code == Some(1) && stderr.contains("status 404") && stderr.contains("resnet50-11ad3fa6.pth"), "{stderr}");
    let (code, stderr) = fetch("http://127.0.0.1:9", "resnet34");
    assert!(code == Some(1) && stderr.contains("cannot reach http://127.0.0.1:9/resnet34-b627a593.pth"), "{stderr}");
    assert!(stderr.contains(&format!("save it as {}", dir.path().join("weights").display())), "{stderr}");
    let (code, stderr) = fetch("http://127.0.0.1:9", "resnet19");
    assert!(code == Some(2) && stderr.contains("unknown pretrained weights `resnet19`"), "{stderr}");
    let (code, stderr) = fetch("example.org", "resnet18");
    assert!(code == Some(2) && stderr.contains("expected a URL that begins with http://"), "{stderr}");
    // `--pretrained` downloads in the same way.
    let output = command(&["predict", "--pretrained", "resnet18", "some.png"])
        .env("RESIDUAL_MIRROR", "http://127.0.0.1:9")
        .env("RESIDUAL_CACHE", dir.path().join("empty"))
        .output()
        .unwrap();
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("cannot reach"));
    let (list, _) = succeeds(&["weights", "list"]);
    assert!(list.contains("resnet18-f37072fd.pth") && list.contains("BSD-3-Clause"));
}

/// Writes tensors of a network as a safetensors file under other names.
fn write_renamed(path: &str, network: &residual_model::Network, name: impl Fn(&str) -> Vec<String>) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = residual_weights::tensors(network)
        .into_iter()
        .flat_map(|(n, (shape, values))| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            name(&n).into_iter().map(move |name| (name, shape.clone(), bytes.clone())).collect::<Vec<_>>()
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data);
        (name.clone(), view.unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// timm's names of `resnetv2`.
fn timm(name: &str) -> String {
    let Some((stage, rest)) = name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) else {
        return name.replace("conv1.", "stem.conv.").replace("bn.", "norm.").replace("fc.", "head.fc.");
    };
    let stage = stage.parse::<usize>().unwrap() - 1;
    let (block, rest) = rest.split_once('.').unwrap();
    format!("stages.{stage}.blocks.{block}.{}", rest.replace("downsample.0", "downsample.conv").replace("bn", "norm"))
}

#[test]
fn preprocessing_by_convention_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (weights, image) = (path("net.safetensors"), path("grey.png"));
    image::RgbImage::from_pixel(240, 230, image::Rgb([128, 90, 60])).save(&image).unwrap();
    let network = |name: &str, classes: usize, stem: residual_model::Stem| {
        let config = residual_model::NetworkConfig::new(name.parse().unwrap(), [3, 224, 224], classes);
        config.with_width(8).with_stem(stem).init(&burn::tensor::Device::flex())
    };
    let large = residual_model::Stem::Large;
    write_renamed(&weights, &network("preact_resnet18", 1000, large), |name| vec![timm(name)]);
    let args = |net: &'static str| ["predict", "--net", net, "--weights", &weights, "--json", &image].map(String::from);
    let said = |net: &'static str, more: &[&str]| {
        let args = args(net);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        succeeds(&args).1
    };
    let half = said("preact_resnet18", &[]);
    assert!(half.contains("does not specify the preprocessing") && half.contains("mean [0.5, 0.5, 0.5]"), "{half}");
    let flags = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"];
    let stderr = said("preact_resnet18", &flags);
    assert!(stderr.contains("does not specify the image size; using resize 256, crop 224"), "{stderr}");
    let all = [&flags[..], &["--resize", "230", "--crop", "224"]].concat();
    assert!(!said("preact_resnet18", &all).contains("does not say"));

    write_renamed(&weights, &network("resnet18", 1000, large), |name| vec![name.into()]);
    assert!(said("resnet18", &[]).contains("torchvision's for ImageNet: resize 256, crop 224, mean [0.485"));

    // A card has the preprocessing, so no line is needed.
    let converted = path("converted.safetensors");
    let (_, stderr) = succeeds(&["convert", &weights, &converted, "--net", "resnet18"]);
    assert!(stderr.contains("mean [0.485"), "{stderr}");
    let (_, stderr) = succeeds(&["predict", "--weights", &converted, &image]);
    assert!(!stderr.contains("mean"), "{stderr}");

    write_renamed(&weights, &network("resnet18", 10, residual_model::Stem::Small), |name| vec![name.into()]);
    assert!(said("resnet18", &flags).contains("is 3x3, so the stem is small and images are 32x32"));
    let args = args("resnet18");
    let bare = command(&args.each_ref().map(String::as_str)).output().unwrap();
    assert!(bare.status.code() == Some(2) && text(&bare.stderr).contains("give it with --mean and --std"));
}

#[test]
fn a_flag_selects_the_average_of_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (both, trained, average) = (path("both.safetensors"), path("a.safetensors"), path("b.safetensors"));
    let config = residual_model::NetworkConfig::new("resnet8".parse().unwrap(), [3, 32, 32], 10).with_width(4);
    write_renamed(&both, &config.init(&burn::tensor::Device::flex()), |name| {
        // The average lacks a tensor, which distinguishes it from the trained weights.
        let keys: &[&str] = if name == "fc.bias" { &["model"] } else { &["model", "model_ema"] };
        keys.iter().map(|key| format!("{key}.{name}")).collect()
    });
    let (_, stderr) = succeeds(&["convert", &both, &trained, "--net", "resnet8"]);
    assert!(
        stderr.contains("both.safetensors: read model (") && stderr.contains("; left aside model_ema ("),
        "{stderr}"
    );
    let with_key =
        |key: &'static str| ["convert", &both, &average, "--net", "resnet8", "--weights-key", key].map(String::from);
    let run = |key: &'static str| {
        let output = command(&with_key(key).each_ref().map(String::as_str)).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, stderr) = run("model_ema");
    assert!(code == Some(1) && stderr.contains("missing: fc.bias"), "{stderr}");
    let (code, stderr) = run("ema");
    assert!(code == Some(2) && stderr.contains("has no tensors under `ema`; expected model, model_ema"), "{stderr}");
    let train = ["train", "--net", "resnet8", "--data", "synthetic", "--dry-run", "--weights-key", "model"];
    refuses(&train, 2, "--weights-key need --weights or --pretrained");
}

fn small(net: &str) -> residual_model::NetworkConfig {
    residual_model::NetworkConfig::new(net.parse().unwrap(), [3, 32, 32], 10).with_width(4)
}

fn init(config: &residual_model::NetworkConfig) -> residual_model::Network {
    config.init(&burn::tensor::Device::flex())
}

#[test]
fn means_and_deviations_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (weights, image) = (path("net.safetensors"), path("image.png"));
    image::RgbImage::from_pixel(32, 32, image::Rgb([128, 90, 60])).save(&image).unwrap();
    write_renamed(&weights, &init(&small("resnet8")), |name| vec![name.into()]);
    let args = |mean: &'static str, std: &'static str| {
        ["predict", "--net", "resnet8", "--weights", &weights, "--mean", mean, "--std", std, &image].map(String::from)
    };
    let refused = |mean, std, text| refuses(&args(mean, std).each_ref().map(String::as_str), 2, text);
    succeeds(&args("0.5, 0.5, 0.5", " 0.2,0.2 ,0.2").each_ref().map(String::as_str));
    refused("0.5", "0.5", "--mean has 1 value, but the network takes images of 3 channels");
    refused("0.5,0.5,0.5", "0.5", "--std has 1 value, but the network takes images of 3 channels");
    refused(
        "123.7,116.3,103.5",
        "0.2,0.2,0.2",
        "--mean must be for pixels from 0 to 1, but one of its values is 123.7",
    );
    refused("0.5,0.5,0.5", "58.4,57.1,57.4", "--std must be for pixels from 0 to 1");
    write_renamed(&weights, &init(&small("resnet8").with_image([1, 32, 32])), |name| vec![name.into()]);
    refused("0.5,0.5,0.5", "0.2,0.2,0.2", "--mean has 3 values, but the network takes images of 1 channel");
}

#[test]
fn networks_that_differ_in_size_alone_need_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (both, to) = (path("both.safetensors"), path("to.safetensors"));
    let tensors = |config| residual_weights::tensors(&init(&config));
    let mut all = Vec::new();
    for (key, config) in [("student", small("resnet8")), ("teacher", small("resnet8").with_width(16))] {
        all.extend(tensors(config).into_iter().map(|(name, (shape, values))| {
            (format!("{key}.{name}"), shape, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        }));
    }
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    fs::write(&both, safetensors::serialize(views, None).unwrap()).unwrap();
    let args = ["convert", &both, &to, "--net", "resnet8"];
    refuses(
        &args,
        2,
        "several dictionaries that fit the network equally well: student and teacher; choose one with --weights-key",
    );
    succeeds(&[&args[..], &["--weights-key", "student"]].concat());
}

#[test]
fn tips_fit_the_mismatch() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (weights, to) = (path("net.safetensors"), path("to.safetensors"));
    let args = ["convert", &weights, &to, "--net", "resnet8"];
    let write = |config: residual_model::NetworkConfig| write_renamed(&weights, &init(&config), |n| vec![n.into()]);
    write(small("resnet8").with_shortcut("B".parse().unwrap()));
    refuses(&args, 1, "(only the shortcuts differ: those of the file are option B); try --shortcut B");
    succeeds(&[&args[..], &["--shortcut", "B"]].concat());
    refuses(
        &[&args[..], &["--weights-key", "x", "--shortcut", "B", "--force"]].concat(),
        2,
        "; leave out --weights-key",
    );
    write(small("resnet8"));
    refuses(&[&args[..], &["--shortcut", "B", "--force"]].concat(), 1, "; try --shortcut A, or A-after");
    let wide = [&args[..], &["--width", "8", "--force"]].concat();
    refuses(&wide, 1, "; the file has width 4; give --width 4");
    write(small("resnet14"));
    refuses(&[&args[..], &["--force"]].concat(), 1, "; the number of blocks differs; is it another network?");
    write_renamed(&weights, &init(&small("resnet8")), |n| if n.starts_with("fc.") { vec![] } else { vec![n.into()] });
    refuses(
        &[&args[..], &["--force"]].concat(),
        1,
        "(only the head is missing); `residual train` starts with a new head",
    );
    let beside = |n: &str| if n == "bn1.bias" { vec![n.into(), "loss.bias".into()] } else { vec![n.into()] };
    write_renamed(&weights, &init(&small("resnet8")), beside);
    refuses(&[&args[..], &["--force"]].concat(), 1, "unknown: loss.bias; drop them with a --name-map");
}

#[test]
fn weights_with_nan_are_not_converted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (good, nan, to) = (path("good.safetensors"), path("nan.safetensors"), path("to.safetensors"));
    succeeds(&["convert", &run(), &good]);
    succeeds(&["convert", &run(), &to]);
    let mut bytes = fs::read(&good).unwrap();
    let end = bytes.len();
    // The last tensor of the file is `linear1.weight`.
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&nan, bytes).unwrap();
    fs::copy(format!("{good}.json"), format!("{nan}.json")).unwrap();
    refuses(
        &["convert", &nan, &to, "--force"],
        1,
        "the tensor linear1.weight has NaN or infinite values; nothing was written",
    );
    assert!(Path::new(&format!("{to}.json")).exists());
}

#[test]
fn folders_of_other_programs_are_no_runs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let args = ["predict", "--net", "resnet18", "--weights", &folder, "a.png"];
    refuses(&args, 1, "holds no training run");
    for (name, text) in [("tf_model.h5", ""), ("net.onnx", ""), ("config.json", r#"{ "model_type": "resnet" }"#)] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        refuses(&args, 2, "is a folder and no training run; give the weights file in it");
        fs::remove_file(file).unwrap();
    }
}

/// The names of Hugging Face.
fn hugging_face(name: &str) -> String {
    let Some((stage, rest)) = name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) else {
        return name
            .replace("conv1.", "resnet.embedder.embedder.convolution.")
            .replace("bn1.", "resnet.embedder.embedder.normalization.")
            .replace("fc.", "classifier.1.");
    };
    let stage = stage.parse::<usize>().unwrap() - 1;
    let (block, rest) = rest.split_once('.').unwrap();
    let rest = rest.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization");
    let layer = |rest: String, i: usize| {
        rest.replace(&format!("conv{}", i + 1), &format!("layer.{i}.convolution"))
            .replace(&format!("bn{}", i + 1), &format!("layer.{i}.normalization"))
    };
    format!("resnet.encoder.stages.{stage}.layers.{block}.{}", (0..3).fold(rest, layer))
}

#[test]
fn hugging_faces_files_are_followed_or_the_difference_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (weights, to) = (path("model.safetensors"), path("to.safetensors"));
    write_renamed(&weights, &init(&small("resnet50").with_classes(2)), |name| vec![hugging_face(name)]);
    let config = r#"{ "model_type": "resnet", "downsample_in_bottleneck": true, "id2label": { "0": "cat" } }"#;
    fs::write(path("config.json"), config).unwrap();
    let preprocessor = r#"{ "feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "resample": 3,
        "image_processor_type": "ConvNextImageProcessor", "do_normalize": false }"#;
    fs::write(path("preprocessor_config.json"), preprocessor).unwrap();
    let args = ["convert", &weights, &to, "--net"];
    refuses(&[&args[..], &["resnet50"]].concat(), 1, "so the network is resnet50_v1, not resnet50");
    let (_, stderr) = succeeds(&[&args[..], &["resnet50_v1"]].concat());
    assert!(stderr.contains("not followed: `resample: 3` (bicubic)"), "{stderr}");
    assert!(stderr.contains("config.json: has 1 label for 2 classes"), "{stderr}");
    let card: serde_json::Value = serde_json::from_slice(&fs::read(format!("{to}.json")).unwrap()).unwrap();
    assert_eq!(card["preprocessing"]["mean"], serde_json::json!([0.0, 0.0, 0.0]));

    // A training reads them too.
    let grey = residual_model::NetworkConfig::new("resnet8".parse().unwrap(), [1, 8, 8], 10).with_width(4);
    write_renamed(&weights, &init(&grey), |name| vec![hugging_face(name)]);
    fs::write(path("config.json"), r#"{ "model_type": "vit" }"#).unwrap();
    let out = path("run");
    let train = ["train", "--net", "resnet8", "--width", "4", "--data", "digits", "--epochs", "1"];
    let (_, stderr) = succeeds(&[&train[..], &["--weights", &weights, "--out", &out]].concat());
    assert!(stderr.contains("the weights expect mean [0.0] and std [1.0], but"), "{stderr}");
    assert!(stderr.contains("config.json is of the model `vit`, not `resnet`; it is not used"), "{stderr}");
}

/// Writes the weights of the finished run with a NaN in their last tensor, `linear1.weight`, and their card.
fn write_nan(path: &str) {
    succeeds(&["convert", &run(), path]);
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn weights_that_are_not_finite_are_named_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (nan, out) = (path("nan.safetensors"), path("out.bpk"));
    write_nan(&nan);
    let named = "nan.safetensors: the tensor linear1.weight has NaN or infinite values";
    refuses(&["convert", &nan, &out], 1, named);
    assert!(!Path::new(&out).exists());
    let (_, stderr) = succeeds(&["convert", &nan, &out, "--allow-nan"]);
    assert!(stderr.contains("note: ") && stderr.contains(named), "{stderr}");
    let eval = command(&["eval", "--weights", &out]).output().unwrap();
    assert!(eval.status.code() == Some(1) && text(&eval.stderr).contains("out.bpk: the tensor linear1.weight has NaN"));
    let image = path("0.png");
    write_digit(0, Path::new(&image));
    let predict = command(&["predict", "--weights", &nan, &image]).output().unwrap();
    assert!(predict.status.code() == Some(1) && text(&predict.stderr).contains(named), "{}", text(&predict.stderr));
    let train = ["train", "--net", "dense-resnet8", "--weights", &nan, "--epochs", "1", "--out", &path("run")];
    assert!(text(&command(&train).output().unwrap().stderr).contains(named));
}

#[test]
fn a_network_larger_than_its_file_is_not_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    // A first convolution of 2000 channels, all of whose elements are the only one of the file.
    let tensor = |name: &str, shape: &[u16]| {
        let sizes = |sizes: &mut dyn Iterator<Item = u16>| {
            let sizes: Vec<u8> = sizes.flat_map(|size| [&b"M"[..], &size.to_le_bytes()].concat()).collect();
            [b"(", &sizes[..], b"t"].concat()
        };
        let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01NtQK\0";
        let shapes = [sizes(&mut shape.iter().copied()), sizes(&mut shape.iter().map(|_| 0))].concat();
        let name = [b"X", &(name.len() as u32).to_le_bytes()[..], name.as_bytes()].concat();
        [&name[..], b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, &shapes, b"\x89NtR"].concat()
    };
    let start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let tensors = [tensor("conv1.weight", &[2000, 3, 3, 3]), tensor("junk", &[60_000, 60_000])].concat();
    let end = b"u.\x80\x02](X\x01\0\0\x000e.\x01\0\0\0\0\0\0\0\0\0\x80\x3f";
    fs::write(path("wide.pth"), [start, &b"\x80\x02}("[..], &tensors, end].concat()).unwrap();
    refuses(
        &["convert", &path("wide.pth"), &path("out.bpk"), "--net", "resnet8"],
        1,
        "holds 4 bytes of values, but resnet8",
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_weights_and_their_card() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let weights = path("weights.safetensors");
    succeeds(&["convert", &run(), &weights]);
    succeeds(&["train", "--net", "dense-plain4", "--epochs", "1", "--out", &path("other")]);
    let content = || (fs::read(&weights).unwrap(), fs::read(format!("{weights}.json")).unwrap());
    let old = content();
    // None of the weights or none of the card fits.
    for blocks in [0, 1] {
        let output = super::with_small_files(blocks, &["convert", &path("other"), &weights, "--force"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("cannot write"), "{}", text(&output.stderr));
        assert!(content() == old);
    }
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
}
