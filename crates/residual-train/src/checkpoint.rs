//! The format of a checkpoint file.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `RESIDUAL` |
//! | 4 | the format version |
//! | 8 | the length of the header |
//! | | the header in CBOR: the network, the progress, the metrics, and the length of each record |
//! | | Burn's records of the weights, the optimizer, the scheduler, the moving average and the best weights, and the loss of every batch as 32-bit floats |
//! | 32 | the SHA-256 checksum of all preceding bytes |
//!
//! Numbers are little-endian. Measured times are stored in a CSV file next to the checkpoint, so that two runs with the
//! same configuration write identical checkpoints.

use crate::{Row, TrainError, progress::Progress};
use burn::tensor::Bytes;
use residual_model::{Network, NetworkConfig, parameters::to_burnpack};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"RESIDUAL";
const CHECKSUM: usize = 32;

/// The state of a training run, from which it can be resumed.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub(crate) network: NetworkConfig,
    pub(crate) progress: Progress,
    /// Whether the schedule's warm-up has ended.
    pub(crate) warm: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) records: Records,
}

/// The measured times of the current epoch, or of one row of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Time {
    seconds: f64,
    images_per_second: f64,
}

/// Burn's records, each encoded as a separate file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Records {
    pub(crate) model: Vec<u8>,
    pub(crate) optimizer: Vec<u8>,
    pub(crate) scheduler: Vec<u8>,
    pub(crate) ema: Option<Vec<u8>>,
    pub(crate) best: Option<Vec<u8>>,
    /// The loss of every batch as 32-bit floats. Checkpoints of format 1 lack it.
    pub(crate) curve: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    network: NetworkConfig,
    progress: Progress,
    warm: bool,
    rows: Vec<Row>,
    /// The length of each record in bytes, or `None` if there is no such record.
    lengths: Vec<Option<u64>>,
}

impl Checkpoint {
    /// The format version that this crate writes. It also reads version 1.
    pub const VERSION: u32 = 2;

    /// The number of finished epochs.
    pub fn epoch(&self) -> usize {
        self.progress.epoch
    }

    /// The number of optimizer steps taken.
    pub fn iteration(&self) -> usize {
        self.progress.iteration
    }

    /// Whether it was written at the end of an epoch, or before the first one. Only such checkpoints are written at the
    /// same iterations in every run of a configuration, however often it is interrupted.
    pub(crate) fn is_between_epochs(&self) -> bool {
        self.progress.batch == 0
    }

    /// Encodes the checkpoint as the content of a file, without the measured times.
    ///
    /// # Errors
    /// If the header cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TrainError> {
        let Records { model, optimizer, scheduler, ema, best, curve } = &self.records;
        let records = [Some(model), Some(optimizer), Some(scheduler), ema.as_ref(), best.as_ref(), curve.as_ref()];
        let header = Header {
            network: self.network.clone(),
            progress: Progress { seconds: 0.0, ..self.progress.clone() },
            warm: self.warm,
            rows: self.rows.iter().map(|row| Row { seconds: 0.0, images_per_second: 0.0, ..row.clone() }).collect(),
            lengths: records.iter().map(|record| record.map(|record| record.len() as u64)).collect(),
        };
        let mut encoded = Vec::new();
        ciborium::into_writer(&header, &mut encoded).map_err(|e| TrainError::Learner(e.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(Self::VERSION.to_le_bytes());
        bytes.extend((encoded.len() as u64).to_le_bytes());
        bytes.extend(encoded);
        records.into_iter().flatten().for_each(|record| bytes.extend(record));
        Ok(Self::seal(bytes))
    }

    /// The times that [`Self::to_bytes`] leaves out: first those of the current epoch, then those of each row.
    pub(crate) fn times(&self) -> Vec<Time> {
        let epoch = Time { seconds: self.progress.seconds, images_per_second: 0.0 };
        let row = |row: &Row| Time { seconds: row.seconds, images_per_second: row.images_per_second };
        [epoch].into_iter().chain(self.rows.iter().map(row)).collect()
    }

    /// Restores the times that [`Self::times`] returned. If their number does not match the number of rows, all times
    /// stay 0.
    pub(crate) fn set_times(&mut self, times: &[Time]) {
        let Some((epoch, rows)) = times.split_first().filter(|(_, rows)| rows.len() == self.rows.len()) else { return };
        self.progress.seconds = epoch.seconds;
        for (row, time) in self.rows.iter_mut().zip(rows) {
            (row.seconds, row.images_per_second) = (time.seconds, time.images_per_second);
        }
    }

    /// Appends the checksum to the content of a checkpoint file.
    pub fn seal(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = Sha256::digest(&content);
        content.extend(checksum);
        content
    }

    /// Decodes the bytes that [`Self::to_bytes`] returned.
    ///
    /// # Errors
    /// If the bytes are not a valid checkpoint. The error is phrased to follow the file's name: `is not a checkpoint`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |problem: &str| format!("is damaged: {problem}");
        let mut rest = bytes.strip_prefix(MAGIC).ok_or("is not a checkpoint")?;
        let version = u32::from_le_bytes(*take(&mut rest).ok_or_else(|| damaged("it is truncated"))?);
        if !(1..=Self::VERSION).contains(&version) {
            let newest = Self::VERSION;
            return Err(format!("is a checkpoint of format {version}; this program reads formats 1 to {newest}"));
        }
        let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Err(damaged("it is truncated"));
        };
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(damaged("its checksum does not match"));
        }
        let length = u64::from_le_bytes(*take(&mut rest).ok_or_else(|| damaged("it is truncated"))?);
        let mut rest = rest.get(..rest.len().saturating_sub(CHECKSUM)).unwrap_or_default();
        let mut section = |length: u64| {
            let (section, after) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))?;
            rest = after;
            Some(section)
        };
        let header = section(length).ok_or_else(|| damaged("its header is truncated"))?;
        let header: Header =
            ciborium::from_reader(header).map_err(|e| damaged(&format!("its header is unreadable: {e}")))?;
        let mut records = [const { None }; 6];
        for (record, length) in records.iter_mut().zip(header.lengths) {
            *record = match length {
                None => None,
                Some(length) => Some(section(length).ok_or_else(|| damaged("a record is truncated"))?.to_vec()),
            };
        }
        let [Some(model), Some(optimizer), Some(scheduler), ema, best, curve] = records else {
            return Err(damaged("a record is missing"));
        };
        let records = Records { model, optimizer, scheduler, ema, best, curve };
        let Header { network, progress, warm, rows, .. } = header;
        Ok(Self { network, progress, warm, rows, records })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

/// Encodes a network's weights as a file in Burn's format.
pub(crate) fn encode_network(network: &Network) -> Result<Vec<u8>, TrainError> {
    to_burnpack(network).map_err(|error| TrainError::Learner(error.to_string()))
}

/// Copies an encoded record into Burn's byte type, from which Burn can decode it.
pub(crate) fn burn_bytes(bytes: &[u8]) -> Bytes {
    Bytes::from_bytes_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    fn checkpoint() -> Checkpoint {
        let row = Row {
            epoch: 1,
            split: Split::Running,
            loss: 0.1 + 0.2,
            error: f64::MIN_POSITIVE,
            lr: 1e-300,
            seconds: 1.0,
            images_per_second: 2.0,
        };
        Checkpoint {
            network: NetworkConfig::new("resnet8".parse().unwrap(), [1, 8, 8], 10),
            progress: Progress { epoch: 3, batch: 7, iteration: 99, best: Some((2, 0.3)), ..Progress::default() },
            warm: true,
            rows: vec![row],
            records: Records {
                model: vec![1, 2, 3],
                optimizer: vec![],
                scheduler: vec![9],
                ema: None,
                best: Some(vec![4]),
                curve: Some(vec![0, 0, 128, 63]),
            },
        }
    }

    #[test]
    fn checkpoints_round_trip_bit_exactly() {
        let bytes = checkpoint().to_bytes().unwrap();
        let mut read = Checkpoint::from_bytes(&bytes).unwrap();
        read.set_times(&checkpoint().times());
        assert_eq!(read, checkpoint());
    }

    #[test]
    fn times_are_not_encoded() {
        let mut slower = checkpoint();
        (slower.progress.seconds, slower.rows[0].seconds, slower.rows[0].images_per_second) = (9.0, 8.0, 7.0);
        assert_eq!(slower.to_bytes().unwrap(), checkpoint().to_bytes().unwrap());
    }

    #[test]
    fn truncated_and_corrupted_files_are_rejected() {
        let bytes = checkpoint().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length]).is_err(), "truncated to {length}");
        }
        for i in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[i] ^= 1 << (i % 8);
            assert!(Checkpoint::from_bytes(&bytes).is_err(), "bit flipped in byte {i}");
        }
        let mut newer = bytes.clone();
        newer[8] = 3;
        assert_eq!(
            Checkpoint::from_bytes(&newer).unwrap_err(),
            "is a checkpoint of format 3; this program reads formats 1 to 2"
        );
        assert_eq!(Checkpoint::from_bytes(b"hello").unwrap_err(), "is not a checkpoint");
    }

    #[test]
    fn wrong_record_lengths_are_rejected() {
        let mut bytes = checkpoint().to_bytes().unwrap();
        bytes.truncate(bytes.len() - CHECKSUM - 1);
        let bytes = Checkpoint::seal(bytes);
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap_err(), "is damaged: a record is truncated");
    }
}
