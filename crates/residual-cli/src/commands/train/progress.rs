use crate::output::{Progress, log, percent};
use residual_train::{Event, Row, Split, TrainConfig};

/// Shows a training's events as a progress bar of batches and one line per epoch.
pub(super) fn observer(config: &TrainConfig) -> impl FnMut(Event<'_>) + 'static {
    let config = config.clone();
    let mut epochs = config.epochs;
    let mut bar: Option<Progress> = None;
    move |event| match event {
        Event::Step { epoch, batch, batches, loss } => {
            // `--iterations` may end the training before the last configured epoch.
            epochs = config.steps(batches).div_ceil(batches.div_ceil(config.accumulate));
            let done = ((epoch - 1) * batches + batch) as u64;
            let bar = bar.get_or_insert_with(|| Progress::new(epochs.saturating_mul(batches) as u64, done));
            bar.set(done);
            bar.message(&format!("epoch {epoch}/{epochs}, loss {loss:.3}"));
        }
        Event::Epoch(rows) => {
            if let (Some(bar), Some(last)) = (&bar, rows.last()) {
                bar.line(&epoch_line(rows, last.epoch, epochs, config.data.validation > 0, bar.columns()));
                if last.epoch == epochs {
                    bar.finish();
                }
            }
        }
        Event::Rewind { iteration, lr } => {
            let text = format!(
                "the loss was NaN or infinite: resuming from iteration {iteration} with learning rate {lr:.2e}"
            );
            match &bar {
                Some(bar) => bar.line(&text),
                None => log!("{text}"),
            }
        }
    }
}

/// `epoch   3/10  loss 0.9420  error: running 33.20 %, training 30.01 %, test 31.94 %  lr 5.00e-2  1204 images/s`, or in
/// a narrow terminal `epoch   3/10  loss 0.9420  error: 33.20 % run, 30.01 % train, 31.94 % test`.
fn epoch_line(rows: &[Row], epoch: usize, epochs: usize, validation: bool, columns: Option<usize>) -> String {
    let find = |split| rows.iter().rev().find(|row| row.epoch == epoch && row.split == split);
    let start = format!("epoch {epoch:>3}/{epochs}");
    let Some(running) = find(Split::Running) else { return start };
    let start = format!("{start}  loss {:.4}  error: ", running.loss);
    let splits = [
        ("running", "run", Split::Running),
        ("training", "train", Split::Train),
        if validation { ("validation", "val", Split::Test) } else { ("test", "test", Split::Test) },
    ];
    let errors: Vec<_> =
        splits.iter().filter_map(|(long, short, split)| Some((long, short, find(*split)?.error))).collect();
    let long: Vec<String> = errors.iter().map(|(name, _, error)| format!("{name} {:>7}", percent(*error))).collect();
    let long = format!("{start}{}  lr {:.2e}  {:.0} images/s", long.join(", "), running.lr, running.images_per_second);
    if columns.is_none_or(|columns| long.chars().count() <= columns) {
        return long;
    }
    let short: Vec<String> = errors.iter().map(|(_, name, error)| format!("{} {name}", percent(*error))).collect();
    start + &short.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_line_fits_into_80_columns() {
        let row = |split, error| Row {
            epoch: 3,
            split,
            loss: 0.942,
            error,
            lr: 0.05,
            seconds: 1.0,
            images_per_second: 1204.0,
        };
        let rows = [row(Split::Running, 0.332), row(Split::Train, 1.0), row(Split::Test, 0.3194)];
        let wide = epoch_line(&rows, 3, 10, false, Some(120));
        assert_eq!(
            wide,
            "epoch   3/10  loss 0.9420  error: running 33.20 %, training 100.00 %, test 31.94 %  lr 5.00e-2  1204 images/s"
        );
        assert_eq!(epoch_line(&rows, 3, 10, false, None), wide);
        let narrow = epoch_line(&rows, 3, 1000, false, Some(80));
        assert_eq!(narrow, "epoch   3/1000  loss 0.9420  error: 33.20 % run, 100.00 % train, 31.94 % test");
        assert!(narrow.chars().count() <= 80);
    }
}
