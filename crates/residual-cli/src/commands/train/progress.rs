use crate::output::{Progress, percent};
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
                bar.line(&epoch_line(rows, last.epoch, epochs));
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
                None => eprintln!("{text}"),
            }
        }
    }
}

/// `epoch   3/10  loss 0.9420  error: running 33.20 %, training 30.01 %, test 31.94 %  lr 5.00e-2  1204 images/s`
fn epoch_line(rows: &[Row], epoch: usize, epochs: usize) -> String {
    let find = |split| rows.iter().rev().find(|row| row.epoch == epoch && row.split == split);
    let mut line = format!("epoch {epoch:>3}/{epochs}");
    let Some(running) = find(Split::Running) else { return line };
    line += &format!("  loss {:.4}  error: running {:>7}", running.loss, percent(running.error));
    for (name, split) in [("training", Split::Train), ("test", Split::Test)] {
        if let Some(row) = find(split) {
            line += &format!(", {name} {:>7}", percent(row.error));
        }
    }
    line + &format!("  lr {:.2e}  {:.0} images/s", running.lr, running.images_per_second)
}
