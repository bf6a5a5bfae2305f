//! Datasets that can be downloaded.

use crate::{
    DataError, DataName,
    cifar::{CIFAR10, CIFAR100},
    shown, shown_path,
};
use flate2::read::GzDecoder;
use residual_fetch::{Checksum, Progress, Source, fetch, is_unfinished, lock, open_regular, temporary};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path},
};

/// A file to download.
struct Download {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const fn download(name: &'static str, bytes: u64, sha256: &'static str) -> Download {
    Download { name, bytes, sha256 }
}

/// The author's web page.
const TORONTO: &str = "https://www.cs.toronto.edu/~kriz/";
const CIFAR10_ARCHIVE: [Download; 1] = [download(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)];
const CIFAR100_ARCHIVE: [Download; 1] = [download(
    "cifar-100-binary.tar.gz",
    168_513_733,
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)];

/// The copy that PyTorch's torchvision downloads from.
const MNIST_SERVER: &str = "https://ossci-datasets.s3.amazonaws.com/mnist/";
const MNIST: [Download; 4] = [
    download(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    download("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    download(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    download("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
];

/// The authors' server.
const FASHION_SERVER: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
const FASHION: [Download; 4] = [
    download(
        "train-images-idx3-ubyte.gz",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    download("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    download(
        "t10k-images-idx3-ubyte.gz",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    download("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
];

impl DataName {
    /// The server, the files on it, and, if the file is an archive, the directory in the archive.
    fn published(self) -> Option<(&'static str, &'static [Download], Option<&'static str>)> {
        match self {
            Self::Cifar10 => Some((TORONTO, &CIFAR10_ARCHIVE, Some(CIFAR10.binary.folder))),
            Self::Cifar100 => Some((TORONTO, &CIFAR100_ARCHIVE, Some(CIFAR100.binary.folder))),
            Self::Mnist => Some((MNIST_SERVER, &MNIST, None)),
            Self::FashionMnist => Some((FASHION_SERVER, &FASHION, None)),
            Self::Digits | Self::Synthetic | Self::Folder => None,
        }
    }

    /// The size of the download in bytes, or `None` if there is nothing to download.
    pub fn download_bytes(self) -> Option<u64> {
        self.published().map(|(_, files, _)| files.iter().map(|file| file.bytes).sum())
    }

    /// Downloads the dataset into `dir` and verifies it. An interrupted download is resumed. `progress` is called with
    /// the number of bytes downloaded so far, summed over all files. If `mirror` is set, the files are downloaded from
    /// this URL, where they must be in a directory with the name of the dataset.
    ///
    /// # Errors
    /// If the dataset is built in or is a [`Folder`](crate::Folder), if a file cannot be written, and as for
    /// [`residual_fetch::fetch`].
    pub fn fetch(self, dir: &Path, mirror: Option<&str>, progress: &mut dyn FnMut(u64)) -> Result<(), DataError> {
        let Some((server, files, unpacked)) = self.published() else {
            let reason = if self == Self::Folder { "consists of your own images" } else { "is built in" };
            return Err(DataError::NotPublished { dataset: self.into(), reason });
        };
        let mirror = mirror.map(|mirror| format!("{}/{self}", mirror.trim_end_matches('/')));
        let server = mirror.as_deref().unwrap_or(server);
        match unpacked {
            None => fetch_files(dir, server, files, progress),
            Some(folder) => fetch_archive(dir, server, &files[0], folder, &|| self.is_in(dir), progress),
        }
    }
}

fn fetch_files(dir: &Path, server: &str, files: &[Download], progress: &mut dyn FnMut(u64)) -> Result<(), DataError> {
    let mut before = 0;
    for Download { name, bytes, sha256 } in files {
        let url = format!("{}/{name}", server.trim_end_matches('/'));
        let source = Source { url, sha256: Checksum::Full((*sha256).into()), bytes: *bytes..=*bytes };
        fetch(&source, &dir.join(name), &mut |Progress { done, .. }| progress(before + done))?;
        before += bytes;
        progress(before);
    }
    Ok(())
}

/// Downloads and unpacks an archive, unless its content already exists.
fn fetch_archive(
    dir: &Path,
    server: &str,
    archive: &Download,
    folder: &str,
    is_complete: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DataError> {
    if is_complete() {
        return Ok(());
    }
    fetch_files(dir, server, std::slice::from_ref(archive), progress)?;
    // Only one process at a time may unpack.
    let held = lock(&dir.join(folder))?;
    if !is_complete() {
        unpack(dir, archive.name, folder)?;
    }
    held.remove();
    Ok(())
}

/// The most bytes that an archive may hold: CIFAR's hold 185 MB.
const MAX_UNPACKED: u64 = 1 << 30;

/// The most files that an archive may hold.
const MAX_FILES: usize = 1000;

/// Unpacks an archive in `dir` to the directory `folder`, and removes the archive. The files are unpacked to a temporary
/// directory, which is then renamed. If `folder` exists, because files of the dataset are missing or damaged in it, each
/// file is moved to it instead, where it replaces a file of the same name; others stay.
fn unpack(dir: &Path, archive: &str, folder: &str) -> Result<(), DataError> {
    let (archive, target) = (dir.join(archive), dir.join(folder));
    remove_unfinished(dir, folder);
    let new = temporary(&target);
    fs::create_dir(&new).map_err(failed("create", &new))?;
    let unpacked = unpack_files(&archive, folder, &new).and_then(|()| put(&new, &target));
    let _ = fs::remove_dir_all(&new);
    unpacked?;
    let _ = fs::remove_file(&archive);
    Ok(())
}

/// Removes what interrupted calls of [`unpack`] left behind. The caller holds the lock.
fn remove_unfinished(dir: &Path, folder: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_own = entry.file_name().to_string_lossy().starts_with(&format!("{folder}."));
        if is_own && is_unfinished(&entry.path()) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Unpacks the regular files `folder/NAME` of an archive to `to`. Anything else in it, such as a link or another path,
/// is an error.
fn unpack_files(archive: &Path, folder: &str, to: &Path) -> Result<(), DataError> {
    let corrupt = |reason: String| DataError::Corrupt { file: shown_path(archive), reason };
    let file = open_regular(archive).map_err(failed("read", archive))?;
    // The headers and the padding of small files, too, count.
    let mut archive = tar::Archive::new(GzDecoder::new(file).take(MAX_UNPACKED));
    let unreadable = |error: io::Error| corrupt(shown(&error.to_string()));
    for (number, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let kind = entry.header().entry_type();
        let parts: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
        let name = match parts[..] {
            [Component::Normal(_)] if kind.is_dir() => continue,
            [Component::Normal(within), Component::Normal(name)] if kind.is_file() && within == folder => name,
            _ => return Err(corrupt(format!("it holds {}, which is not a file in {folder}", shown_path(&path)))),
        };
        if number == MAX_FILES {
            return Err(corrupt(format!("it holds more than {MAX_FILES} files")));
        }
        let path = to.join(name);
        let mut file = File::create_new(&path).map_err(failed("write", &path))?;
        let copied = io::copy(&mut entry, &mut file).map_err(failed("unpack", &path))?;
        if copied < entry.size() {
            return Err(corrupt(format!("it is truncated, or holds more than {MAX_UNPACKED} bytes")));
        }
        // The files must be on disk before the rename.
        file.sync_all().map_err(failed("write", &path))?;
    }
    Ok(())
}

/// Renames a directory to `target`, or moves its files to `target` if that exists.
fn put(new: &Path, target: &Path) -> Result<(), DataError> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fs::rename(new, target).map_err(failed("write", target));
        }
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            let reason = "is not a folder; remove it to fetch the dataset again".into();
            return Err(DataError::Folder { path: target.into(), reason });
        }
        Err(error) => return Err(failed("read", target)(error)),
    }
    for entry in fs::read_dir(new).map_err(failed("read", new))? {
        let entry = entry.map_err(failed("read", new))?;
        let path = target.join(entry.file_name());
        fs::rename(entry.path(), &path).map_err(failed("replace", &path))?;
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DataError {
    move |source| DataError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use residual_fetch::sha256_file;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    /// A gzipped archive of entries of this kind, path and content.
    fn packed(entries: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            // `set_path` refuses the paths that a hostile archive has.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if kind.is_symlink() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn archive() -> Vec<u8> {
        packed(&[
            (tar::EntryType::Directory, "some-folder", b""),
            (tar::EntryType::Regular, "some-folder/test.bin", b"abc"),
        ])
    }

    #[test]
    fn unpacking_keeps_what_others_wrote_and_removes_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = |dir: &Path| fs::read_dir(dir).unwrap().count();
        fs::write(path("a.tar.gz"), archive()).unwrap();
        fs::create_dir(path("some-folder.0123456789abcdef.tmp")).unwrap();
        unpack(dir.path(), "a.tar.gz", "some-folder").unwrap();
        assert_eq!(fs::read(path("some-folder/test.bin")).unwrap(), b"abc");
        assert_eq!((files(dir.path()), files(&path("some-folder"))), (1, 1));

        fs::write(path("a.tar.gz"), archive()).unwrap();
        fs::create_dir(path("some-folder.part")).unwrap();
        fs::write(path("some-folder/notes.txt"), "mine").unwrap();
        fs::write(path("some-folder/test.bin"), "damaged").unwrap();
        unpack(dir.path(), "a.tar.gz", "some-folder").unwrap();
        assert_eq!(fs::read(path("some-folder/test.bin")).unwrap(), b"abc");
        assert_eq!(fs::read(path("some-folder/notes.txt")).unwrap(), b"mine");
        assert_eq!((files(dir.path()), files(&path("some-folder"))), (2, 2));

        fs::write(path("a.tar.gz"), archive()).unwrap();
        fs::remove_dir_all(path("some-folder")).unwrap();
        fs::write(path("some-folder"), "a file").unwrap();
        let error = unpack(dir.path(), "a.tar.gz", "some-folder").unwrap_err().to_string();
        assert!(error.ends_with("some-folder is not a folder; remove it to fetch the dataset again"), "{error}");
        assert_eq!((fs::read(path("some-folder")).unwrap(), files(dir.path())), (b"a file".to_vec(), 3));
    }

    #[test]
    fn hostile_archives_write_nothing_outside() {
        use tar::EntryType as Kind;
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for (kind, path) in [
            (Kind::Regular, "../escaped"),
            (Kind::Regular, "some-folder/../../escaped"),
            (Kind::Regular, "/tmp/escaped"),
            (Kind::Regular, "some-folder/a/b"),
            (Kind::Regular, "other/a"),
            (Kind::Regular, "escaped"),
            (Kind::Symlink, "some-folder/a"),
            (Kind::Link, "some-folder/a"),
            (Kind::Fifo, "some-folder/a"),
            (Kind::Char, "some-folder/a\x1b[2J"),
        ] {
            fs::write(inner.join("a.tar.gz"), packed(&[(kind, path, b"")])).unwrap();
            let error = unpack(&inner, "a.tar.gz", "some-folder").unwrap_err().to_string();
            assert!(error.ends_with("which is not a file in some-folder") && !error.contains('\x1b'), "{error}");
            let names = [dir.path(), &inner].map(|dir| fs::read_dir(dir).unwrap().count());
            assert_eq!(names, [1, 1], "{path}");
        }
        // Cut in the middle, and twice the same file.
        let whole = packed(&[(Kind::Regular, "some-folder/a", &[7; 100_000])]);
        let twice = packed(&[(Kind::Regular, "some-folder/a", b""), (Kind::Regular, "some-folder/a", b"")]);
        for content in [&whole[..whole.len() / 2], &twice] {
            fs::write(inner.join("a.tar.gz"), content).unwrap();
            assert!(unpack(&inner, "a.tar.gz", "some-folder").is_err());
            assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
        }
    }

    /// Serves the content. The first connection is closed after half of it.
    fn serve(content: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let part = if i == 0 { &content[..content.len() / 2] } else { &content[..] };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part));
            }
        });
        url
    }

    #[test]
    fn an_interrupted_download_resumes_and_a_wrong_file_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let content = archive();
        let saved = dir.path().join("expected");
        fs::write(&saved, &content).unwrap();
        let sha256: &'static str = sha256_file(&saved).unwrap().leak();
        let server = serve(content.clone());
        let to = dir.path().join("data");
        let file = download("a.tar.gz", content.len() as u64, sha256);
        let complete = || to.join("some-folder/test.bin").is_file();
        let mut last = 0;
        fetch_archive(&to, &server, &file, "some-folder", &complete, &mut |done| last = done).unwrap();
        assert_eq!((last, fs::read(to.join("some-folder/test.bin")).unwrap()), (content.len() as u64, b"abc".to_vec()));
        fetch_archive(&to, "http://127.0.0.1:1", &file, "some-folder", &complete, &mut |_| {}).unwrap();
        // An incomplete directory is fetched again.
        fs::remove_file(to.join("some-folder/test.bin")).unwrap();
        fetch_archive(&to, &server, &file, "some-folder", &complete, &mut |_| {}).unwrap();
        assert!(complete());

        let error = DataName::Mnist.fetch(&dir.path().join("mnist"), Some(&server), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("is not the expected file: it has "), "{error}");
        assert!(!dir.path().join("mnist/train-images-idx3-ubyte.gz").exists());
    }

    #[test]
    fn a_built_in_dataset_cannot_be_fetched() {
        let error = DataName::Digits.fetch(Path::new("x"), None, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "dataset digits is built in; there is nothing to fetch");
    }
}
