//! The file of a checkpoint.
//!
//! | bytes | hold |
//! |---|---|
//! | 8 | `RESIDUAL` |
//! | 4 | the format's version |
//! | 8 | the header's length |
//! | | the header, CBOR: network, progress, metrics, and the length of each record |
//! | | Burn's records of the weights, the optimizer, the schedule, the moving average, the best weights |
//! | 32 | SHA-256 of all before |
//!
//! Numbers are little-endian. Times that were measured are not in it but in a CSV file beside it, so that two trainings of
//! one configuration write the same bytes.

use crate::{Row, TrainError, progress::Progress};
use residual_model::NetworkConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"RESIDUAL";
const CHECKSUM: usize = 32;

/// A checkpoint that a training can go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub(crate) network: NetworkConfig,
    pub(crate) progress: Progress,
    /// Whether the schedule's warm-up is over.
    pub(crate) warm: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) records: Records,
}

/// How long something took that a checkpoint tells of: the running epoch, or a row of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Time {
    seconds: f64,
    images_per_second: f64,
}

/// Burn's records, each as a file of its own would hold it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Records {
    pub(crate) model: Vec<u8>,
    pub(crate) optimizer: Vec<u8>,
    pub(crate) scheduler: Vec<u8>,
    pub(crate) ema: Option<Vec<u8>>,
    pub(crate) best: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    network: NetworkConfig,
    progress: Progress,
    warm: bool,
    rows: Vec<Row>,
    /// The length of each record, if it is there.
    lengths: [Option<u64>; 5],
}

impl Checkpoint {
    /// The format that this version of the crate writes and reads.
    pub const VERSION: u32 = 1;

    /// Epochs finished.
    pub fn epoch(&self) -> usize {
        self.progress.epoch
    }

    /// Optimizer steps taken.
    pub fn iteration(&self) -> usize {
        self.progress.iteration
    }

    /// The file's content. The times in the metrics are left out.
    ///
    /// # Errors
    /// If the description cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TrainError> {
        let Records { model, optimizer, scheduler, ema, best } = &self.records;
        let records = [Some(model), Some(optimizer), Some(scheduler), ema.as_ref(), best.as_ref()];
        let header = Header {
            network: self.network.clone(),
            progress: Progress { seconds: 0.0, ..self.progress.clone() },
            warm: self.warm,
            rows: self.rows.iter().map(|row| Row { seconds: 0.0, images_per_second: 0.0, ..row.clone() }).collect(),
            lengths: records.map(|record| record.map(|record| record.len() as u64)),
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

    /// The times that [`Self::to_bytes`] leaves out: of the running epoch, then of each row.
    pub(crate) fn times(&self) -> Vec<Time> {
        let epoch = Time { seconds: self.progress.seconds, images_per_second: 0.0 };
        let row = |row: &Row| Time { seconds: row.seconds, images_per_second: row.images_per_second };
        [epoch].into_iter().chain(self.rows.iter().map(row)).collect()
    }

    /// Puts times back, if they are of as many rows; without them a time is 0.
    pub(crate) fn set_times(&mut self, times: &[Time]) {
        let Some((epoch, rows)) = times.split_first().filter(|(_, rows)| rows.len() == self.rows.len()) else { return };
        self.progress.seconds = epoch.seconds;
        for (row, time) in self.rows.iter_mut().zip(rows) {
            (row.seconds, row.images_per_second) = (time.seconds, time.images_per_second);
        }
    }

    /// A file's content with its checksum behind it.
    pub fn seal(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = Sha256::digest(&content);
        content.extend(checksum);
        content
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence that begins with the file's name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |what: &str| format!("is damaged: {what}");
        let mut rest = bytes.strip_prefix(MAGIC).ok_or("is no checkpoint")?;
        let version = u32::from_le_bytes(*take(&mut rest).ok_or_else(|| damaged("it is cut off"))?);
        if version != Self::VERSION {
            return Err(format!("is a checkpoint of format {version}; this program reads format {}", Self::VERSION));
        }
        let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Err(damaged("it is cut off"));
        };
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(damaged("its checksum is another"));
        }
        let length = u64::from_le_bytes(*take(&mut rest).ok_or_else(|| damaged("it is cut off"))?);
        let mut rest = rest.get(..rest.len().saturating_sub(CHECKSUM)).unwrap_or_default();
        let mut section = |length: u64| {
            let (section, after) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))?;
            rest = after;
            Some(section)
        };
        let header = section(length).ok_or_else(|| damaged("its header is cut off"))?;
        let header: Header =
            ciborium::from_reader(header).map_err(|e| damaged(&format!("its header is unreadable: {e}")))?;
        let mut records = [const { None }; 5];
        for (record, length) in records.iter_mut().zip(header.lengths) {
            *record = match length {
                None => None,
                Some(length) => Some(section(length).ok_or_else(|| damaged("a record is cut off"))?.to_vec()),
            };
        }
        let [Some(model), Some(optimizer), Some(scheduler), ema, best] = records else {
            return Err(damaged("a record is missing"));
        };
        let records = Records { model, optimizer, scheduler, ema, best };
        let Header { network, progress, warm, rows, .. } = header;
        Ok(Self { network, progress, warm, rows, records })
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
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
            },
        }
    }

    #[test]
    fn a_checkpoint_survives_its_file_to_the_bit() {
        let bytes = checkpoint().to_bytes().unwrap();
        let mut read = Checkpoint::from_bytes(&bytes).unwrap();
        read.set_times(&checkpoint().times());
        assert_eq!(read, checkpoint());
    }

    #[test]
    fn times_are_not_among_the_bytes() {
        let mut slower = checkpoint();
        (slower.progress.seconds, slower.rows[0].seconds, slower.rows[0].images_per_second) = (9.0, 8.0, 7.0);
        assert_eq!(slower.to_bytes().unwrap(), checkpoint().to_bytes().unwrap());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let bytes = checkpoint().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..length]).is_err(), "cut to {length}");
        }
        for i in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[i] ^= 1 << (i % 8);
            assert!(Checkpoint::from_bytes(&bytes).is_err(), "bit {i}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert_eq!(
            Checkpoint::from_bytes(&newer).unwrap_err(),
            "is a checkpoint of format 2; this program reads format 1"
        );
        assert_eq!(Checkpoint::from_bytes(b"hello").unwrap_err(), "is no checkpoint");
    }

    #[test]
    fn a_whole_file_with_wrong_lengths_is_refused() {
        let mut bytes = checkpoint().to_bytes().unwrap();
        bytes.truncate(bytes.len() - CHECKSUM - 1);
        let bytes = Checkpoint::seal(bytes);
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap_err(), "is damaged: a record is cut off");
    }
}
