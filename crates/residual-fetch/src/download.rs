use crate::{Checksum, FetchError};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use ureq::{
    Agent, Body, Proxy,
    http::{Response, Uri, header},
};

/// The number of times that one call resumes an interrupted transfer.
const RETRIES: usize = 3;
/// The time to wait before each retry.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });
/// The time to wait for a response from the server.
const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The HTTP or HTTPS URL.
    pub url: String,
    /// The expected checksum.
    pub sha256: Checksum,
}

/// The progress of a download. It goes back to 0 if the server cannot resume in the middle of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of bytes received, including those of earlier attempts.
    pub done: u64,
    /// The size of the file in bytes, if the server sends it.
    pub total: Option<u64>,
}

/// A transfer that ended early.
struct Interruption {
    /// Bytes received in this attempt.
    received: u64,
    /// Bytes received in all attempts.
    done: u64,
    total: Option<u64>,
    reason: String,
}

struct Download<'a> {
    source: &'a Source,
    to: &'a Path,
    part: PathBuf,
    agent: Agent,
}

/// Downloads a file to `to`, which must not exist and must be locked.
pub(crate) fn download(source: &Source, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), FetchError> {
    let download = Download { source, to, part: to.with_added_extension("part"), agent: agent(&source.url) };
    let mut retries = 0;
    while let Some(Interruption { received, done, total, reason }) = download.attempt(progress)? {
        if received == 0 || retries == RETRIES {
            return Err(FetchError::Interrupted { url: source.url.clone(), done, total, reason });
        }
        retries += 1;
        thread::sleep(PAUSE);
    }
    download.finish()
}

impl Download<'_> {
    /// Requests and writes the missing bytes. Returns the interruption if the transfer ends early.
    fn attempt(&self, progress: &mut dyn FnMut(Progress)) -> Result<Option<Interruption>, FetchError> {
        let have = match fs::metadata(&self.part) {
            Ok(part) => part.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(FetchError::io("read", &self.part)(error)),
        };
        let mut request = self.agent.get(&self.source.url);
        if have > 0 {
            // If the published file has changed in the meantime, the checksum will not match.
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        let length = response.body().content_length();
        let (start, total) = match response.status().as_u16() {
            200 => (0, length),
            206 | 416 if have > 0 => match range(&response) {
                Some((start, total)) if start == have => (start, total.or(length.map(|length| start + length))),
                // The server cannot resume at this byte: the partial file is either complete or unusable.
                _ if self.source.sha256.mismatch(&self.part)?.is_none() => return Ok(None),
                _ => {
                    self.remove_part()?;
                    return self.attempt(progress);
                }
            },
            status => {
                let url = self.source.url.clone();
                return Err(FetchError::Status { url, status, to: self.to.into() });
            }
        };
        self.transfer(response, start, total, progress)
    }

    /// Writes the body of a response to the partial file, starting at byte `start`.
    fn transfer(
        &self,
        response: Response<Body>,
        start: u64,
        total: Option<u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Interruption>, FetchError> {
        let write = || FetchError::io("write", &self.part);
        let mut part = File::options().write(true).create(true).truncate(false).open(&self.part).map_err(write())?;
        part.set_len(start).and_then(|()| part.seek(SeekFrom::Start(start))).map_err(write())?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut done = start;
        let failure = loop {
            progress(Progress { done, total });
            match body.read(&mut buffer) {
                Ok(0) => break None,
                Ok(read) => {
                    part.write_all(&buffer[..read]).map_err(write())?;
                    done += read as u64;
                }
                Err(error) => break Some(reason(&error.into())),
            }
        };
        part.sync_all().map_err(write())?;
        let short = total.is_some_and(|total| done < total).then(|| "the server stopped sending".into());
        Ok(failure.or(short).map(|reason| Interruption { received: done - start, done, total, reason }))
    }

    /// Verifies the partial file and renames it to `to`.
    fn finish(&self) -> Result<(), FetchError> {
        if let Some(found) = self.source.sha256.mismatch(&self.part)? {
            self.remove_part()?;
            let expected = self.source.sha256.digits().into();
            return Err(FetchError::Mismatch { url: self.source.url.clone(), expected, found });
        }
        fs::rename(&self.part, self.to).map_err(FetchError::io("write", self.to))
    }

    fn remove_part(&self) -> Result<(), FetchError> {
        fs::remove_file(&self.part).map_err(FetchError::io("remove", &self.part))
    }

    fn unreachable(&self, error: &ureq::Error) -> FetchError {
        FetchError::Unreachable { url: self.source.url.clone(), reason: reason(error), to: self.to.into() }
    }
}

fn agent(url: &str) -> Agent {
    // A proxy cannot reach a server on this machine.
    let local = url.parse::<Uri>().is_ok_and(|url| matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]")));
    Agent::config_builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        // The checksum is computed from the file as published, so the server must not compress it.
        .accept_encoding("identity")
        .proxy(if local { None } else { Proxy::try_from_env() })
        .http_status_as_error(false)
        .timeout_resolve(Some(TIMEOUT))
        .timeout_connect(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT))
        .timeout_per_write(Some(TIMEOUT))
        .build()
        .into()
}

/// The start and the total length from a header such as `content-range: bytes 100-299/300`.
fn range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Describes the cause of an error for an error message.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no response for {} seconds", TIMEOUT.as_secs()),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
