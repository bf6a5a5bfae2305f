use crate::{Checksum, FetchError, regular::without_links};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
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
/// The number of bytes that a transfer must receive per [`TIMEOUT`]: 1 KiB per second.
const MIN_BYTES: u64 = 1024 * TIMEOUT.as_secs();

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The HTTP or HTTPS URL.
    pub url: String,
    /// The expected checksum.
    pub sha256: Checksum,
    /// The expected size in bytes. A download never exceeds the largest one.
    pub bytes: RangeInclusive<u64>,
}

impl Source {
    /// How a size differs from the expected one, phrased to follow the file's name and a colon.
    pub(crate) fn unexpected_size(&self, size: u64) -> Option<String> {
        let (least, most) = (self.bytes.start(), self.bytes.end());
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        (!self.bytes.contains(&size)).then(|| format!("it has {size} bytes, not {expected}"))
    }
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
        let have = self.received()?;
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
        if let Some(reason) = total.and_then(|total| self.source.unexpected_size(total)) {
            return Err(FetchError::Mismatch { url: self.source.url.clone(), reason });
        }
        self.transfer(response, start, total, progress)
    }

    /// The size of the partial file. One that is too large is removed.
    fn received(&self) -> Result<u64, FetchError> {
        match fs::symlink_metadata(&self.part) {
            Ok(part) if !part.is_file() => Err(FetchError::Irregular { path: self.part.clone() }),
            Ok(part) if part.len() > *self.source.bytes.end() => self.remove_part().map(|()| 0),
            Ok(part) => Ok(part.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(FetchError::io("read", &self.part)(error)),
        }
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
        let mut part = File::options();
        let part = without_links(part.write(true).create(true).truncate(false)).open(&self.part);
        let mut part = part.map_err(write())?;
        part.set_len(start).and_then(|()| part.seek(SeekFrom::Start(start))).map_err(write())?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let (least, most) = (*self.source.bytes.start(), *self.source.bytes.end());
        let mut done = start;
        let mut window = (Instant::now(), done);
        let failure = loop {
            progress(Progress { done, total });
            match body.read(&mut buffer) {
                Ok(0) => break None,
                Ok(read) if done + read as u64 > most => {
                    self.remove_part()?;
                    let reason = format!("it has more than {most} bytes; the download was removed");
                    return Err(FetchError::Mismatch { url: self.source.url.clone(), reason });
                }
                Ok(read) => {
                    part.write_all(&buffer[..read]).map_err(write())?;
                    done += read as u64;
                }
                Err(error) => break Some(reason(&error.into())),
            }
            if window.0.elapsed() >= TIMEOUT {
                if done - window.1 < MIN_BYTES {
                    break Some(format!("fewer than {MIN_BYTES} bytes in {} seconds", TIMEOUT.as_secs()));
                }
                window = (Instant::now(), done);
            }
        };
        part.sync_all().map_err(write())?;
        let short = (done < total.unwrap_or(least)).then(|| "the server stopped sending".into());
        Ok(failure.or(short).map(|reason| Interruption { received: done - start, done, total, reason }))
    }

    /// Verifies the partial file and renames it to `to`.
    fn finish(&self) -> Result<(), FetchError> {
        if let Some(reason) = self.source.sha256.mismatch(&self.part)? {
            self.remove_part()?;
            let reason = format!("{reason}; the download was removed");
            return Err(FetchError::Mismatch { url: self.source.url.clone(), reason });
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
    let url = url.parse::<Uri>().unwrap_or_default();
    // A proxy cannot reach a server on this machine.
    let local = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    Agent::config_builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        // The checksum is computed from the file as published, so the server must not compress it.
        .accept_encoding("identity")
        .proxy(if local { None } else { Proxy::try_from_env() })
        // This includes redirections.
        .https_only(url.scheme_str() == Some("https"))
        .http_status_as_error(false)
        .timeout_resolve(Some(TIMEOUT))
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
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
        ureq::Error::RequireHttpsOnly(_) => "it redirects from HTTPS to HTTP, where anybody could change it".into(),
        // It may quote what the server sent.
        error => error.to_string().chars().filter(|character| !character.is_control()).take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_over_https_stays_there() {
        assert!(agent("https://example.com/a").config().https_only());
        assert!(agent("HTTPS://example.com/a").config().https_only());
        assert!(!agent("http://example.com/a").config().https_only());
        let error = agent("https://example.com/a").get("http://127.0.0.1:1/a").call().unwrap_err();
        assert!(reason(&error).starts_with("it redirects from HTTPS to HTTP"), "{error}");
    }
}
