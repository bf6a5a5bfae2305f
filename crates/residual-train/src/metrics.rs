use crate::TrainError;
use serde::{Deserialize, Serialize};

/// The kind of a row of metrics.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", parse_err_ty = TrainError, parse_err_fn = unknown_split)]
pub enum Split {
    /// The training batches of an epoch, measured during training while the weights change.
    Running,
    /// A clean pass over the training set.
    Train,
    /// A clean pass over the test set.
    Test,
    /// Not a measurement: the loss became NaN or infinite, so the run went back to a checkpoint. It continued with the
    /// learning rate in this row.
    Rewind,
}

fn unknown_split(name: &str) -> TrainError {
    TrainError::unknown::<Split>("split", name)
}

/// A row of `metrics.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The kind of the row.
    pub split: Split,
    /// The mean cross-entropy over the samples, in nats.
    pub loss: f64,
    /// The fraction of samples that are misclassified.
    pub error: f64,
    /// The learning rate in the last iteration of the epoch.
    pub lr: f64,
    /// The time taken, in seconds.
    pub seconds: f64,
    /// Samples per second.
    pub images_per_second: f64,
}

/// Whether the test loss has not improved for `patience` epochs.
pub(crate) fn is_stale(rows: &[Row], patience: usize) -> bool {
    let tests: Vec<&Row> = rows.iter().filter(|row| row.split == Split::Test).collect();
    let best = tests.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
    match (best, tests.last()) {
        (Some(best), Some(last)) => last.epoch - best.epoch >= patience,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    fn row(epoch: usize, loss: f64) -> Row {
        Row { epoch, split: Split::Test, loss, error: 0.5, lr: 0.1, seconds: 1.0, images_per_second: 9.0 }
    }

    #[test]
    fn rows_round_trip_through_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let rows = [row(1, 0.1 + 0.2), Row { split: Split::Running, ..row(2, 1e-9) }];
        files::write_csv(&path, &rows).unwrap();
        assert_eq!(files::read_csv::<Row>(&path).unwrap(), rows);
    }

    #[test]
    fn a_run_is_stale_after_patience_epochs_without_improvement() {
        let rows = [row(1, 1.0), row(2, 0.5), row(3, 0.6), row(4, 0.7)];
        assert!(!is_stale(&rows[..2], 1) && is_stale(&rows[..3], 1));
        assert!(!is_stale(&rows, 3) && is_stale(&rows, 2));
        assert!(!is_stale(&[], 1));
    }

    #[test]
    fn split_names_match_the_csv() {
        for &split in <Split as strum::VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(&split).unwrap(), format!("\"{split}\""));
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
        }
        let error = "valid".parse::<Split>().unwrap_err().to_string();
        assert_eq!(error, "unknown split `valid`; expected one of running, train, test, rewind");
    }
}
