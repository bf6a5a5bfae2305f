//! Writes event files, from which TensorBoard draws its Scalars and HParams tabs.
//!
//! The file is a sequence of TFRecords (`tensorflow/core/lib/io/record_writer.h`), each of which holds an `Event`, a
//! protobuf message (`event.proto` and `summary.proto` in `tensorboard/compat/proto`, `plugin_data.proto` in
//! `tensorboard/plugins/hparams`).

use serde_json::{Map, Value};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

/// The start of an event file's name. The time in seconds since 1970 follows.
const PREFIX: &str = "events.out.tfevents.";

/// A file of events, open for writing.
///
/// Each call appends one record, without a buffer: TensorBoard can show it at once, and a kill damages at most the last
/// record, which readers then ignore. If a call fails, later records of the same file may be unreadable; create another
/// file for them.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
}

/// How a training session ended: `tensorboard.hparams.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    /// It ran to its end.
    Success = 1,
    /// It ended with an error.
    Failure = 2,
}

impl EventFile {
    /// Creates a file named `events.out.tfevents.SECONDS.residual` in an existing directory. Its first records are the
    /// version of the format and the first step, which has the same effect as in [`Self::restart`].
    ///
    /// A directory holds the event files of one training session: one file, and another for each time that it is
    /// resumed. TensorBoard reads them in the order of their names, so `SECONDS` is the time in seconds since 1970 or,
    /// if that is not later than in the names of all other event files, the next number after those.
    ///
    /// # Errors
    /// If the directory cannot be read, or the file exists or cannot be written.
    pub(crate) fn create(directory: &Path, first_step: usize) -> io::Result<Self> {
        let mut seconds = now() as u64;
        for entry in fs::read_dir(directory)? {
            if let Some(earlier) = seconds_in(&entry?.file_name()) {
                seconds = seconds.max(earlier.saturating_add(1));
            }
        }
        let file = File::create_new(directory.join(format!("{PREFIX}{seconds:010}.residual")))?;
        let mut events = Self { file };
        events.write(Message::event(0).bytes(3, "brain.Event:2"))?;
        events.restart(first_step)?;
        Ok(events)
    }

    /// Makes TensorBoard drop all scalars at this step and later ones that were written before: `SessionLog` with the
    /// status `START`. A training that continues from a checkpoint restarts at the step after the checkpoint's.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn restart(&mut self, first_step: usize) -> io::Result<()> {
        const START: u64 = 1;
        self.write(Message::event(first_step).bytes(7, Message::default().varint(1, START)))
    }

    /// Writes scalars, as pairs of a tag and a value. Tags with the same text before the `/`, such as `error/training`
    /// and `error/test`, form a group in TensorBoard. The step is the number of iterations so far; the steps of a tag
    /// must increase.
    ///
    /// The values are rounded to 32-bit floats: `Summary.Value.simple_value`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn scalars(&mut self, step: usize, scalars: &[(&str, f64)]) -> io::Result<()> {
        let value = |&(tag, value): &(&str, f64)| Message::default().bytes(1, tag).float(2, value as f32);
        let summary = scalars.iter().map(value).fold(Message::default(), |summary, value| summary.bytes(1, value));
        self.write(Message::event(step).bytes(5, summary))
    }

    /// Writes the settings of the training session: `SessionStartInfo`. Each is a column of the HParams tab, beside the
    /// last value of each tag. That tab finds the values only if `--logdir` is a parent of the session's directory.
    ///
    /// Nested settings get names with a dot, such as `optimizer.momentum`. A list becomes text, and a setting that is
    /// null is left out. Of the settings in the files of one directory, the first ones count.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn hparams(&mut self, settings: &Map<String, Value>) -> io::Result<()> {
        let start_info = put_settings(Message::default(), "", settings).double(5, now());
        self.write_plugin_data("_hparams_/session_start_info", 3, start_info)
    }

    /// Writes how and when the training session ended: `SessionEndInfo`. In the HParams tab, a session without an end
    /// has the status "unknown".
    ///
    /// Of the ends in the files of one directory, the first one counts. So a session that may be resumed should not
    /// write its end: it would be shown as failed even if it succeeds later.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn end(&mut self, status: SessionStatus) -> io::Result<()> {
        let end_info = Message::default().varint(1, status as u64).double(2, now());
        self.write_plugin_data("_hparams_/session_end_info", 4, end_info)
    }

    /// Writes data of the HParams plugin: a field of `HParamsPluginData`, in the metadata of an empty tensor.
    ///
    /// There is no `_hparams_/experiment`, which would list the settings and tags of all sessions: without it,
    /// TensorBoard finds them by itself, and one session does not know those of the others.
    fn write_plugin_data(&mut self, tag: &str, field: u64, data: Message) -> io::Result<()> {
        const FLOAT: u64 = 1;
        let plugin = Message::default().bytes(1, "hparams").bytes(2, Message::default().bytes(field, data));
        let metadata = Message::default().bytes(1, plugin);
        // The tensor's shape has one dimension, whose size is 0.
        let tensor = Message::default().varint(1, FLOAT).bytes(2, Message::default().bytes(2, ""));
        let value = Message::default().bytes(1, tag).bytes(9, metadata).bytes(8, tensor);
        self.write(Message::event(0).bytes(5, Message::default().bytes(1, value)))
    }

    fn write(&mut self, event: Message) -> io::Result<()> {
        self.file.write_all(&record(&event.0))
    }
}

/// The time in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Whether a file was written by [`EventFile`].
pub(crate) fn is_event_file(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| seconds_in(name).is_some() && name.to_str().is_some_and(|name| name.ends_with(".residual")))
}

/// The time in the name of an event file.
fn seconds_in(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// Appends settings to the map `SessionStartInfo.hparams`. Their values are `google.protobuf.Value`s.
fn put_settings(start_info: Message, prefix: &str, settings: &Map<String, Value>) -> Message {
    settings.iter().fold(start_info, |start_info, (name, value)| {
        let name = format!("{prefix}{name}");
        let value = match value {
            Value::Null => return start_info,
            Value::Object(nested) => return put_settings(start_info, &format!("{name}."), nested),
            Value::Number(number) => Message::default().double(2, number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Message::default().bytes(3, text),
            Value::Bool(flag) => Message::default().varint(4, u64::from(*flag)),
            Value::Array(_) => Message::default().bytes(3, value.to_string()),
        };
        start_info.bytes(1, Message::default().bytes(1, name).bytes(2, value))
    })
}

/// A TFRecord: the length of the data (64 bits, little-endian), its masked CRC-32C, the data, and its masked CRC-32C.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked_crc32c(&length)[..], data, &masked_crc32c(data)].concat()
}

/// A checksum as TFRecords store it: rotated by 15 bits, plus a constant.
fn masked_crc32c(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli): RFC 3720, section 12.1.
fn crc32c(data: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| crc >> 1 ^ if crc & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 };
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| shift(crc)))
}

/// A protobuf message, encoded: each field is its number and wire type as a varint, followed by its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An `Event` of this moment, without content.
    fn event(step: usize) -> Self {
        Self::default().double(1, now()).varint(2, step as u64)
    }

    fn varint(mut self, field: u64, value: u64) -> Self {
        put_varint(&mut self.0, field << 3);
        put_varint(&mut self.0, value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        put_varint(&mut self.0, field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string, bytes or a message.
    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        put_varint(&mut self.0, field << 3 | 2);
        put_varint(&mut self.0, value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        put_varint(&mut self.0, field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends a number with 7 bits in each byte, the lowest first. All bytes but the last have the highest bit set.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn varint(value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        bytes
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The data of each record in a file.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let (file, mut records, mut start) = (fs::read(path).unwrap(), Vec::new(), 0);
        while start < file.len() {
            let length = u64::from_le_bytes(file[start..start + 8].try_into().unwrap()) as usize;
            let data = &file[start + 12..start + 12 + length];
            assert_eq!(record(data), file[start..start + length + 16]);
            records.push(data.to_vec());
            start += length + 16;
        }
        records
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn varints_have_seven_bits_in_a_byte() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [0x7f]);
        assert_eq!(varint(128), [0x80, 0x01]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX), [vec![0xff; 9], vec![0x01]].concat());
    }

    /// The bytes are TensorFlow's.
    #[test]
    fn a_record_equals_that_of_tensorflow() {
        let wall_time = f64::from_le_bytes(*b"\x00\x00\x80\x38\x99\xd6\xd7\x41");
        let event = Message::default().double(1, wall_time).bytes(3, "brain.Event:2");
        let data = b"\x09\x00\x00\x80\x38\x99\xd6\xd7\x41\x1a\x0dbrain.Event:2";
        assert_eq!(event.0, data);
        let parts = [&b"\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22"[..], data, b"\x12\x4b\x36\xab"];
        assert_eq!(record(data), parts.concat());
    }

    #[test]
    fn a_file_begins_with_the_version_and_the_first_step() {
        let directory = tempfile::tempdir().unwrap();
        let before = now();
        EventFile::create(directory.path(), 300).unwrap();
        let [version, start] = &records(&files(directory.path())[0])[..] else { panic!("there are not two records") };
        assert_eq!(version[9..], *b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(start[9..], *b"\x10\xac\x02\x3a\x02\x08\x01");
        for event in [version, start] {
            assert_eq!(event[0], 0x09);
            let wall_time = f64::from_le_bytes(event[1..9].try_into().unwrap());
            assert!((before..=now()).contains(&wall_time), "{wall_time}");
        }
    }

    #[test]
    fn scalars_are_floats_in_one_event() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(directory.path(), 0).unwrap();
        events.scalars(5, &[("lr", 0.1), ("a/b", -2.0)]).unwrap();
        let event = records(&files(directory.path())[0]).pop().unwrap();
        let expected = b"\x10\x05\x2a\x17\x0a\x09\x0a\x02lr\x15\xcd\xcc\xcc\x3d\x0a\x0a\x0a\x03a/b\x15\0\0\0\xc0";
        assert_eq!(event[9..], *expected);
    }

    /// The bytes are those of Python's protobuf package.
    #[test]
    fn settings_are_a_map_of_numbers_words_and_booleans() {
        let settings =
            json!({ "flip": false, "lr": 0.5, "net": { "name": "plain20", "stages": [3, 3] }, "seed": null });
        let start_info = put_settings(Message::default(), "", settings.as_object().unwrap());
        let expected = [
            &b"\x0a\x0a\x0a\x04flip\x12\x02\x20\x00"[..],
            b"\x0a\x0f\x0a\x02lr\x12\x09\x11\0\0\0\0\0\0\xe0\x3f",
            b"\x0a\x15\x0a\x08net.name\x12\x09\x1a\x07plain20",
            b"\x0a\x15\x0a\x0anet.stages\x12\x07\x1a\x05[3,3]",
        ];
        assert_eq!(start_info.0, expected.concat());
    }

    #[test]
    fn each_file_is_new_and_its_name_comes_last() {
        let directory = tempfile::tempdir().unwrap();
        let foreign = [format!("{PREFIX}4000000000.host.1.0"), format!("{PREFIX}x"), "metrics.csv".into()];
        for name in foreign {
            fs::write(directory.path().join(name), "").unwrap();
        }
        for _ in 0..11 {
            EventFile::create(directory.path(), 0).unwrap();
        }
        assert!(directory.path().join(format!("{PREFIX}4000000001.residual")).exists());
        assert!(directory.path().join(format!("{PREFIX}4000000011.residual")).exists());
        let missing = EventFile::create(&directory.path().join("missing"), 0).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
