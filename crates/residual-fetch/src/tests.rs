//! Downloads from a local server with scripted answers.

use super::*;
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};
use tempfile::TempDir;

/// The server's answer to one request. Each request has its own connection.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The requested range.
    Rest,
    /// This many bytes of the requested range, then the connection is closed.
    Cut(usize),
    /// This many bytes of the requested range, then nothing until the client disconnects.
    Stall(usize),
    /// The whole file, ignoring the requested range.
    Whole,
    /// This many bytes from the start of the file, ignoring the requested range, then the connection is closed.
    WholeCut(usize),
    /// The whole file, without its length.
    WithoutLength,
    /// The whole file in chunks, with or without the final chunk.
    Chunked(bool),
    /// A range that was not requested.
    WrongRange,
    /// A byte every hundredth of a second.
    Trickle,
    /// Bytes without end, without the length.
    Endless,
    /// A file of another length.
    OtherLength,
    /// Only a status.
    Status(u16),
    /// A redirect to another path.
    Redirect,
    /// No answer: the connection is closed at once.
    Nothing,
}

struct Server {
    address: String,
    /// The path and the start of the requested range for each connection.
    requests: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Server {
    fn start(content: &[u8], answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, content, answers) = (requests.clone(), content.to_vec(), answers.to_vec());
        thread::spawn(move || {
            for answer in answers {
                let Ok((stream, _)) = listener.accept() else { return };
                let request = read_request(&stream);
                let start = request.1;
                log.lock().unwrap().push(request);
                // The client may have disconnected.
                let _ = reply(&stream, answer, &content, start as usize);
            }
        });
        Self { address, requests }
    }

    fn starts(&self) -> Vec<u64> {
        self.requests.lock().unwrap().iter().map(|(_, start)| *start).collect()
    }
}

fn read_request(stream: &TcpStream) -> (String, u64) {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut start = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_lowercase().as_str() {
            "range" => start = value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap(),
            "accept-encoding" => assert_eq!(value, "identity"),
            _ => {}
        }
    }
    (path, start)
}

fn reply(mut stream: &TcpStream, answer: Answer, content: &[u8], start: usize) -> io::Result<()> {
    let total = content.len();
    let start = if matches!(answer, Answer::Whole | Answer::WholeCut(_)) { 0 } else { start };
    let mut head =
        |status: &str, headers: String| write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n");
    let rest = match start {
        0 => content,
        _ if start < total => &content[start..],
        _ => {
            return head(
                "416 Range Not Satisfiable",
                format!("content-range: bytes */{total}\r\ncontent-length: 0\r\n"),
            );
        }
    };
    match answer {
        Answer::Rest | Answer::Cut(_) | Answer::Stall(_) | Answer::Whole | Answer::WholeCut(_) | Answer::Trickle => {
            let mut headers = format!("content-length: {}\r\n", rest.len());
            if start > 0 {
                headers += &format!("content-range: bytes {start}-{}/{total}\r\n", total - 1);
            }
            head(if start > 0 { "206 Partial Content" } else { "200 OK" }, headers)?;
            match answer {
                Answer::Cut(bytes) | Answer::WholeCut(bytes) => stream.write_all(&rest[..bytes])?,
                Answer::Stall(bytes) => {
                    stream.write_all(&rest[..bytes])?;
                    io::copy(&mut stream, &mut io::sink())?;
                }
                Answer::Trickle => {
                    for byte in rest {
                        stream.write_all(&[*byte])?;
                        thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
                _ => stream.write_all(rest)?,
            }
        }
        Answer::WithoutLength => {
            head("200 OK", String::new())?;
            stream.write_all(content)?;
        }
        Answer::Endless => {
            head("200 OK", String::new())?;
            loop {
                stream.write_all(&[0; 4096])?;
            }
        }
        Answer::OtherLength => {
            head("200 OK", format!("content-length: {}\r\n", total + 1))?;
            stream.write_all(content)?;
        }
        Answer::Chunked(ended) => {
            head("200 OK", "transfer-encoding: chunked\r\n".into())?;
            for chunk in content.chunks(1000) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(if ended { b"0\r\n\r\n" } else { b"" })?;
        }
        Answer::WrongRange => {
            head("206 Partial Content", format!("content-length: 1\r\ncontent-range: bytes 0-0/{total}\r\n"))?;
            stream.write_all(&content[..1])?;
        }
        Answer::Status(status) => head(&format!("{status} Some Words"), "content-length: 0\r\n".into())?,
        Answer::Redirect => head("302 Found", "content-length: 0\r\nlocation: /elsewhere\r\n".into())?,
        Answer::Nothing => {}
    }
    Ok(())
}

/// Pseudorandom numbers: the linear congruential generator of Knuth's MMIX.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

fn content(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64;
    (0..bytes).map(|_| next(&mut state) as u8).collect()
}

/// A temporary directory, the content and checksum of a published file, and the path to which it is downloaded.
struct Case {
    dir: TempDir,
    content: Vec<u8>,
    digits: String,
    to: PathBuf,
}

impl Case {
    fn new(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let content = content(bytes);
        let other = dir.path().join("copy");
        fs::write(&other, &content).unwrap();
        let digits = sha256_file(&other).unwrap();
        fs::remove_file(other).unwrap();
        let to = dir.path().join("weights.pth");
        Self { dir, content, digits, to }
    }

    fn source(&self, server: &Server) -> Source {
        let (sha256, size) = (Checksum::Full(self.digits.clone()), self.content.len() as u64);
        Source { url: format!("{}/weights.pth", server.address), sha256, bytes: size..=size }
    }

    fn server(&self, answers: &[Answer]) -> (Server, Source) {
        let server = Server::start(&self.content, answers);
        let source = self.source(&server);
        (server, source)
    }

    fn fetch(&self, source: &Source) -> Result<Outcome, FetchError> {
        fetch(source, &self.to, &mut |_| {})
    }

    fn error(&self, source: &Source) -> String {
        let error = self.fetch(source).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    /// The names of the files in the directory.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Asserts that the directory contains the complete file and nothing else.
    fn assert_complete(&self) {
        assert_eq!(self.names(), ["weights.pth"]);
        assert!(fs::read(&self.to).unwrap() == self.content);
    }
}

#[test]
fn a_download_reports_its_progress() {
    let mut case = Case::new(300_000);
    case.to = case.dir.path().join("new/folder/weights.pth");
    let (server, source) = case.server(&[Answer::Rest]);
    let mut seen = Vec::new();
    assert_eq!(fetch(&source, &case.to, &mut |progress| seen.push(progress)).unwrap(), Outcome::Downloaded);
    assert!(fs::read(&case.to).unwrap() == case.content);
    assert_eq!(server.starts(), [0]);
    assert!(seen.iter().all(|progress| progress.total == Some(300_000)));
    assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done), "{seen:?}");
    assert_eq!((seen[0].done, seen.last().unwrap().done), (0, 300_000));
}

#[test]
fn one_call_resumes_interrupted_transfers() {
    for seed in 0..40 {
        let mut state = seed;
        let case = Case::new(1 + next(&mut state) % 200_000);
        let mut left = case.content.len();
        let mut starts = vec![0];
        let mut answers = Vec::new();
        for _ in 0..3.min(left - 1) {
            let bytes = 1 + next(&mut state) % (left / 2);
            answers.push(Answer::Cut(bytes));
            left -= bytes;
            starts.push((case.content.len() - left) as u64);
            if left < 2 {
                break;
            }
        }
        answers.push(Answer::Rest);
        let (server, source) = case.server(&answers);
        assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded, "{answers:?}");
        assert_eq!(server.starts(), starts);
        case.assert_complete();
    }
}

#[test]
fn the_next_call_resumes() {
    let case = Case::new(100_000);
    let cuts = [Answer::Cut(10_000), Answer::Cut(1), Answer::Cut(20_000), Answer::Cut(5)];
    let (server, source) = case.server(&cuts);
    let error = case.error(&source);
    let expected = "interrupted after 30006 of 100000 bytes: the connection was closed; try again to resume it";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(server.starts(), [0, 10_000, 10_001, 30_001]);
    assert!(!case.to.exists());

    let (server, source) = case.server(&[Answer::Rest]);
    let mut first = None;
    fetch(&source, &case.to, &mut |progress| first = first.or(Some(progress))).unwrap();
    assert_eq!(first, Some(Progress { done: 30_006, total: Some(100_000) }));
    assert_eq!(server.starts(), [30_006]);
    case.assert_complete();
}

#[test]
fn a_transfer_without_progress_is_not_retried() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Cut(1_000), Answer::Cut(0), Answer::Rest]);
    assert!(case.error(&source).contains("interrupted after 1000 of 5000 bytes"));
    assert_eq!(server.starts(), [0, 1_000]);
}

#[test]
fn a_stalled_transfer_times_out() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Stall(1_000), Answer::Rest]);
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    assert_eq!(server.starts(), [0, 1_000]);
    case.assert_complete();

    let case = Case::new(5_000);
    let (_server, source) = case.server(&[Answer::Stall(0)]);
    assert!(case.error(&source).contains("interrupted after 0 of 5000 bytes: no response for 2 seconds"));
}

#[test]
fn a_slow_transfer_is_interrupted_and_resumed() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Trickle, Answer::Rest]);
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    let starts = server.starts();
    assert!(starts.len() == 2 && (1..2048).contains(&starts[1]), "{starts:?}");
    case.assert_complete();
}

#[test]
fn no_more_than_the_expected_size_is_written() {
    let case = Case::new(50_000);
    let (_server, source) = case.server(&[Answer::Endless]);
    let mut most = 0;
    let error = fetch(&source, &case.to, &mut |progress| most = most.max(progress.done)).unwrap_err().to_string();
    assert!(error.ends_with("it has more than 50000 bytes; the download was removed"), "{error}");
    assert!(most <= 50_000);
    assert_eq!(case.names(), ["weights.pth.lock"]);

    // Another page, such as that of a hotel's network, leaves the partial file as it is.
    let part = case.dir.path().join("weights.pth.part");
    fs::write(&part, &case.content[..100]).unwrap();
    let (_server, source) = case.server(&[Answer::OtherLength]);
    assert!(case.error(&source).ends_with("is not the expected file: it has 50001 bytes, not 50000"));
    assert_eq!(fs::read(&part).unwrap(), case.content[..100]);

    let (_server, source) = case.server(&[Answer::Rest]);
    let source = Source { bytes: 10..=49_999, ..source };
    assert!(case.error(&source).ends_with("it has 50000 bytes, not 10 to 49999"));
}

#[cfg(unix)]
#[test]
fn links_in_place_of_files_are_not_followed() {
    use std::os::unix::fs::symlink;
    let case = Case::new(5_000);
    let victim = case.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let (server, source) = case.server(&[Answer::Rest]);
    let part = case.dir.path().join("weights.pth.part");
    symlink(&victim, &part).unwrap();
    let expected = format!("{} is not a regular file; remove it to download to it", part.display());
    assert_eq!(case.error(&source), expected);
    assert_eq!(server.starts(), [0; 0]);
    fs::remove_file(part).unwrap();

    // A dangling link in place of the target or the lock file.
    let elsewhere = case.dir.path().join("elsewhere");
    let lock = case.dir.path().join("weights.pth.lock");
    fs::remove_file(&lock).unwrap();
    symlink(&elsewhere, &lock).unwrap();
    assert!(case.error(&source).starts_with("cannot create "));
    fs::remove_file(&lock).unwrap();
    symlink(&elsewhere, &case.to).unwrap();
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    assert!(!elsewhere.exists() && case.to.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_server_without_ranges_restarts_the_download() {
    let case = Case::new(50_000);
    let (server, source) = case.server(&[Answer::Whole, Answer::Whole]);
    fs::write(case.dir.path().join("weights.pth.part"), &case.content[..49_000]).unwrap();
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    assert_eq!(server.starts(), [49_000]);
    case.assert_complete();

    let case = Case::new(50_000);
    let (server, source) = case.server(&[Answer::WholeCut(20_000), Answer::WholeCut(10_000), Answer::Whole]);
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    assert_eq!(server.starts(), [0, 20_000, 10_000]);
    case.assert_complete();
}

#[test]
fn a_partial_file_that_cannot_be_resumed_is_verified_or_removed() {
    let case = Case::new(9_000);
    let part = case.dir.path().join("weights.pth.part");
    let wrong = content(8_500);
    // The existing partial file, the server's answers, and the starts of the requested ranges.
    let larger = content(9_500);
    let cases: [(&[u8], &[Answer], &[u64]); 5] = [
        (&case.content, &[Answer::Rest], &[9_000]),
        (&case.content, &[Answer::WrongRange], &[9_000]),
        (&wrong, &[Answer::WrongRange, Answer::Rest], &[8_500, 0]),
        (&larger, &[Answer::Rest], &[0]),
        (&wrong[..100], &[Answer::WrongRange, Answer::Rest], &[100, 0]),
    ];
    for (existing, answers, starts) in cases {
        let (server, source) = case.server(answers);
        fs::write(&part, existing).unwrap();
        assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded, "{answers:?}");
        assert_eq!(server.starts(), starts);
        case.assert_complete();
        fs::remove_file(&case.to).unwrap();
    }
}

#[test]
fn the_length_may_be_unknown() {
    for answer in [Answer::WithoutLength, Answer::Chunked(true)] {
        let case = Case::new(70_000);
        let (_server, source) = case.server(&[answer]);
        let mut totals = Vec::new();
        fetch(&source, &case.to, &mut |progress| totals.push(progress.total)).unwrap();
        assert!(totals.iter().all(Option::is_none));
        case.assert_complete();
    }
    let case = Case::new(70_000);
    let (server, source) = case.server(&[Answer::Chunked(false), Answer::Rest]);
    case.fetch(&source).unwrap();
    assert_eq!(server.starts(), [0, 70_000]);
    case.assert_complete();
}

#[test]
fn a_download_with_the_wrong_checksum_is_removed() {
    let digits = "0123456789abcdef".repeat(4);
    for sha256 in [Checksum::Full(digits.clone()), Checksum::Prefix(digits[..8].into())] {
        let case = Case::new(5_000);
        let (_server, mut source) = case.server(&[Answer::Rest]);
        source.sha256 = sha256;
        let error = case.error(&source);
        let expected = source.sha256.digits();
        let found = &case.digits[..expected.len()];
        let reason = format!("its SHA-256 checksum is {found}, not {expected}; the download was removed");
        assert!(error.starts_with(&source.url) && error.ends_with(&reason), "{error}");
        assert_eq!(case.names(), ["weights.pth.lock"]);
    }
}

#[test]
fn a_partial_download_of_another_file_is_detected() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Rest, Answer::Rest]);
    fs::write(case.dir.path().join("weights.pth.part"), [0; 100]).unwrap();
    assert!(case.error(&source).contains("not the expected file"));
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    assert_eq!(server.starts(), [100, 0]);
    case.assert_complete();
}

#[test]
fn an_existing_file_is_not_downloaded_again() {
    let case = Case::new(5_000);
    let (server, mut source) = case.server(&[Answer::Rest]);
    fs::write(&case.to, &case.content).unwrap();
    let forms = [
        Checksum::Full(case.digits.clone()),
        Checksum::Full(case.digits.to_uppercase()),
        Checksum::Prefix(case.digits[..8].into()),
    ];
    for sha256 in forms {
        source.sha256 = sha256;
        let outcome = fetch(&source, &case.to, &mut |_| panic!("the file was downloaded again")).unwrap();
        assert_eq!(outcome, Outcome::Present);
    }
    assert_eq!(server.starts(), [0; 0]);
    case.assert_complete();
}

#[test]
fn a_damaged_file_is_reported_and_kept() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Rest]);
    fs::write(&case.to, b"something else").unwrap();
    let error = case.error(&source);
    assert!(error.starts_with(&format!("{} is damaged: ", case.to.display())), "{error}");
    assert!(error.ends_with("; remove it to download it again"), "{error}");
    assert!(error.contains("it has 14 bytes, not 5000"), "{error}");
    assert_eq!(fs::read(&case.to).unwrap(), b"something else");
    fs::write(&case.to, &content(5_001)[..5_000]).unwrap();
    assert_eq!(case.error(&source), verify(&case.to, &source.sha256).unwrap_err().to_string());
    assert_eq!(server.starts(), [0; 0]);
}

#[test]
fn redirects_are_followed_when_resuming() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Redirect, Answer::Cut(10), Answer::Redirect, Answer::Rest]);
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    let requests = server.requests.lock().unwrap().clone();
    let paths: Vec<_> = requests.iter().map(|(path, start)| (path.as_str(), *start)).collect();
    assert_eq!(paths, [("/weights.pth", 0), ("/elsewhere", 0), ("/weights.pth", 10), ("/elsewhere", 10)]);
    case.assert_complete();
}

#[test]
fn an_error_status_is_reported_with_url_and_path() {
    for status in [404, 403, 503] {
        let case = Case::new(5_000);
        let (_server, source) = case.server(&[Answer::Status(status)]);
        let (url, to) = (&source.url, case.to.display());
        let expected = format!(
            "cannot download {url}: the server returned status {status}; \
             download the file elsewhere and save it as {to}"
        );
        assert_eq!(case.error(&source), expected);
        assert!(!case.to.exists());
    }
}

#[test]
fn an_unreachable_server_is_reported_with_its_url() {
    let case = Case::new(5_000);
    let (_server, closing) = case.server(&[Answer::Nothing]);
    // A port without a server, a server that closes the connection, and two unusable URLs.
    let urls = ["http://127.0.0.1:1/weights.pth", &closing.url, "not a URL", "ftp://127.0.0.1/weights.pth"];
    for url in urls {
        let source = Source { url: url.into(), ..closing.clone() };
        let error = case.error(&source);
        assert!(error.starts_with(&format!("cannot reach {url}: ")), "{error}");
        assert!(
            error.ends_with(&format!("download the file elsewhere and save it as {}", case.to.display())),
            "{error}"
        );
    }
    assert_eq!(case.names(), ["weights.pth.lock"]);
}

#[test]
fn received_bytes_survive_a_lost_connection() {
    let case = Case::new(5_000);
    let (_server, source) = case.server(&[Answer::Cut(3_000), Answer::Nothing]);
    assert!(case.error(&source).starts_with("cannot reach http://127.0.0.1:"));
    let (server, source) = case.server(&[Answer::Rest]);
    case.fetch(&source).unwrap();
    assert_eq!(server.starts(), [3_000]);
    case.assert_complete();
}

#[test]
fn a_second_download_of_the_same_file_fails() {
    let case = Case::new(5_000);
    let (server, source) = case.server(&[Answer::Rest]);
    let mut refused = 0;
    let mut second = |_: Progress| {
        let error = case.error(&source);
        assert_eq!(
            error,
            format!("{} is being downloaded by another process; wait for it to finish", case.to.display())
        );
        refused += 1;
    };
    assert_eq!(fetch(&source, &case.to, &mut second).unwrap(), Outcome::Downloaded);
    assert!(refused > 0);
    assert_eq!(server.starts(), [0]);
    case.assert_complete();
}

#[test]
fn a_stale_lock_file_is_ignored() {
    let case = Case::new(5_000);
    let (_server, source) = case.server(&[Answer::Rest]);
    fs::write(case.dir.path().join("weights.pth.lock"), b"").unwrap();
    assert_eq!(case.fetch(&source).unwrap(), Outcome::Downloaded);
    case.assert_complete();
}

#[test]
fn concurrent_downloads_leave_one_complete_file() {
    let case = Case::new(400_000);
    let (_server, source) = case.server(&[Answer::Rest; 8]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Err(error) = case.fetch(&source) {
                    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
                    thread::yield_now();
                }
            });
        }
    });
    case.assert_complete();
}

#[test]
fn invalid_checksums_are_rejected() {
    let hex = "0123456789abcdef".repeat(4);
    let bad = [
        (Checksum::Full(hex[1..].into()), "64"),
        (Checksum::Full(hex.replace('a', "g")), "64"),
        (Checksum::Prefix(String::new()), "8 to 64"),
        (Checksum::Prefix(hex[..7].into()), "8 to 64"),
        (Checksum::Prefix(format!("{hex}0")), "8 to 64"),
        (Checksum::Prefix("ff37072é".into()), "8 to 64"),
    ];
    let case = Case::new(10);
    for (sha256, expected) in bad {
        let message =
            format!("`{}` is not a SHA-256 checksum; expected {expected} hexadecimal digits", sha256.digits());
        let source = Source { url: "http://127.0.0.1/".into(), sha256, bytes: 0..=10 };
        assert_eq!(case.error(&source), message);
    }
    assert!(case.names().is_empty());
}

#[test]
fn a_path_that_cannot_be_written_is_reported() {
    let mut case = Case::new(5_000);
    let (_server, source) = case.server(&[Answer::Rest]);
    let file = case.dir.path().join("file");
    fs::write(&file, b"").unwrap();
    case.to = file.join("sub/weights.pth");
    let error = case.error(&source);
    assert!(error.starts_with("cannot ") && error.contains(&*file.to_string_lossy()), "{error}");
    // A directory with the name of the partial file.
    case.to = case.dir.path().join("weights.pth");
    let part = case.dir.path().join("weights.pth.part");
    fs::create_dir(&part).unwrap();
    assert!(case.error(&source).starts_with(&format!("{} is not a regular file", part.display())));
}

#[test]
fn checksums_match_known_values() {
    let case = Case::new(0);
    for (text, digits) in [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ] {
        fs::write(&case.to, text).unwrap();
        assert_eq!(sha256_file(&case.to).unwrap(), digits);
        verify(&case.to, &Checksum::Prefix(digits[..8].into())).unwrap();
    }
    assert!(sha256_file(case.dir.path().join("missing")).is_err());
    let error = verify(case.dir.path().join("missing"), &Checksum::Full(case.digits.clone())).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("missing"), "{error}");
}
