//! Recognises files whose weights cannot be read, and says what to do.

use std::path::Path;

/// A text that follows the name of a file of another kind: its format, and what to do. `start` is its first bytes.
pub(crate) fn recognise(path: &Path, start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(usize, &[u8], &str); 19] = [
        (0, b"version https://git-lfs.github.com", GIT_LFS),
        (0, b"\x89HDF\r\n\x1a\n", HDF5),
        (0, b"GGUF", "is a GGUF file of a language model, which holds none of these networks"),
        (4, b"TFL3", "is a TensorFlow Lite model; load the original model and save its weights as safetensors"),
        (0, b"\x93NUMPY", "is a NumPy array; save the weights in Python as safetensors"),
        (257, b"ustar", "is a tar archive; unpack it and give the weights file in it"),
        (0, b"\x1f\x8b", "is compressed by gzip; unpack it first"),
        (0, b"BZh", "is compressed by bzip2; unpack it first"),
        (0, b"\xfd7zXZ\0", "is compressed by xz; unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"),
        (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and give the weights file in it"),
        (0, b"Rar!", "is a RAR archive; unpack it and give the weights file in it"),
        (0, b"model_checkpoint_path:", TENSORFLOW),
        (0, b"\x80\x02", PICKLE),
        (0, b"\x80\x03", PICKLE),
        (0, b"\x80\x04", PICKLE),
        (0, b"\x80\x05", PICKLE),
        (0, b"%PDF", "is a PDF document"),
        (0, b"MATLAB 5.0", "is a MATLAB file; save the weights in Python as safetensors"),
    ];
    let has = |(at, magic, _): &&(usize, &[u8], _)| start.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((.., kind)) = MAGIC.iter().find(has) {
        return Some(kind);
    }
    let text = String::from_utf8_lossy(start).trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        return Some("is a web page, not weights; the download needs another link or a login");
    }
    by_name(path, start)
}

/// Protocol buffers and tables have no magic number at their start.
fn by_name(path: &Path, start: &[u8]) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let is_named = |end: &str| name.ends_with(end);
    let is_checkpoint = name.contains(".ckpt") || name.contains(".data-0") || is_named(".index");
    match start {
        // Field 1, the version of ONNX's format, and then the producer, the domain, the opsets or the graph.
        [8, 3..=20, 0x12 | 0x1a | 0x22 | 0x3a | 0x42, ..] => Some(ONNX),
        _ if is_named(".onnx") => Some(ONNX),
        // Field 1, the version of the schema, and then the graph.
        [8, 1, 0x12, ..] | [0x0a, ..] if is_named(".pb") => Some(TENSORFLOW),
        _ if is_named(".pb") || is_checkpoint => Some(TENSORFLOW),
        _ if is_named(".caffemodel") => Some("is a Caffe model; convert it to PyTorch first"),
        _ if is_named(".msgpack") => Some("is a Flax model; save its weights in Python as safetensors"),
        _ if is_named(".t7") => Some("is a file of Lua Torch; convert it to PyTorch first"),
        _ => None,
    }
}

const GIT_LFS: &str = "is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`, or download it";
const HDF5: &str = "is an HDF5 file, as Keras writes; load it there and save its weights as safetensors or PyTorch";
const TENSORFLOW: &str = "is a TensorFlow model; load it there and save its weights as safetensors or PyTorch";
const ONNX: &str = "is an ONNX model; save the weights of the original module, its state_dict(), with torch.save";
const PICKLE: &str = "is a pickle that torch.save did not write; load it in Python and save it with torch.save";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_kinds_are_named() {
        let cases: [(&str, &[u8], &str); 12] = [
            ("a.pth", b"\n<!DOCTYPE html><title>Sign in</title>", "web page"),
            ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
            ("a.h5", b"\x89HDF\r\n\x1a\n\0\0", "Keras"),
            ("a.bin", b"GGUF\x03\0\0\0", "GGUF"),
            ("a.npy", b"\x93NUMPY\x01\0", "NumPy"),
            ("a.gz", b"\x1f\x8b\x08\0", "gzip"),
            ("net.bin", b"\x08\x08\x12\x07pytorch", "ONNX"),
            ("net.onnx", b"", "ONNX"),
            ("saved_model.pb", b"\x08\x01\x12\x04", "TensorFlow"),
            ("resnet.ckpt-100.data-00000-of-00001", b"\x12\x34", "TensorFlow"),
            ("variables.index", b"\0\0", "TensorFlow"),
            ("state.pkl", b"\x80\x04\x95", "torch.save"),
        ];
        for (name, start, expected) in cases {
            let text = recognise(Path::new(name), start).unwrap_or_default();
            assert!(text.starts_with("is ") && text.contains(expected) && !text.contains('\n'), "{name}: {text}");
        }
        assert_eq!(recognise(Path::new("a.pth"), b"hello"), None);
    }
}
