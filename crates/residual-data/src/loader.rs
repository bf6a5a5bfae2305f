use crate::{Augmentation, DataError, Source};
use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress},
        dataset::DatasetError,
    },
    tensor::{Device, Int, Tensor, TensorData},
};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Images and labels on a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, channels, height, width]`
    pub images: Tensor<4>,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
    /// The probability of each class, `[batch, classes]`. `None` if neither mixup nor label smoothing is used: then
    /// `labels` are the targets.
    pub targets: Option<Tensor<2>>,
    /// The index of this batch, counted from 0 at the start of epoch 0.
    pub number: u64,
}

/// The order in which a loader reads its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of the source.
    Sequential,
    /// A permutation that depends only on (seed, epoch).
    Shuffled {
        /// The seed.
        seed: u64,
    },
}

/// Loads the samples of a [`Source`] in batches. Their order depends only on (seed, epoch), not on the number of
/// threads or on the batches read before.
///
/// Implements Burn's [`DataLoader`]. Each call of `iter` reads the loader's current epoch and advances the loader to
/// the next one. [`Loader::seek`] sets the epoch.
#[derive(Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    range: Range<usize>,
    classes: usize,
    batch_size: usize,
    order: Order,
    drop_last: bool,
    prefetch: usize,
    share: (usize, usize),
    augmentation: Option<(Augmentation, u64)>,
    workers: Option<Workers>,
    device: Device,
    cursor: Arc<Cursor>,
}

/// The threads that read samples, or why they could not be started.
type Workers = Arc<Result<ThreadPool, String>>;

/// The position at which the next `iter` starts. All clones of a loader share it.
#[derive(Default)]
struct Cursor {
    epoch: AtomicUsize,
    batch: AtomicUsize,
}

impl Loader {
    /// Creates a loader that reads all samples in the source's order. It does not prefetch, and it keeps a short last
    /// batch.
    ///
    /// # Panics
    /// If the batch size is zero.
    pub fn new(source: Arc<dyn Source>, batch_size: usize, device: &Device) -> Self {
        assert!(batch_size > 0, "the batch size must be at least 1");
        Self {
            range: 0..source.len(),
            classes: source.classes(),
            source,
            batch_size,
            order: Order::Sequential,
            drop_last: false,
            prefetch: 0,
            share: (0, 1),
            augmentation: None,
            workers: None,
            device: device.clone(),
            cursor: Arc::default(),
        }
    }

    /// Sets the order of the samples.
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets whether a short last batch is dropped.
    pub fn with_drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// Sets the number of batches that a background thread prefetches. With 0, the caller's thread reads the batches.
    pub fn with_prefetch(mut self, batches: usize) -> Self {
        self.prefetch = batches;
        self
    }

    /// Sets which batches are read: of each epoch, only those whose index, from 0, is `rank` modulo `count`. The others are
    /// counted as read.
    ///
    /// # Panics
    /// If `rank` is not less than `count`.
    pub fn with_share(mut self, rank: usize, count: usize) -> Self {
        assert!(rank < count, "the rank must be less than the number of ranks");
        self.share = (rank, count);
        self
    }

    /// Sets the augmentation and the seed of its random numbers.
    pub fn with_augmentation(mut self, augmentation: Augmentation, seed: u64) -> Self {
        self.augmentation = (augmentation != Augmentation::default()).then_some((augmentation, seed));
        self
    }

    /// Sets the number of columns of the batches' targets. The default is the source's number of classes. A network
    /// with more classes needs more columns.
    ///
    /// # Panics
    /// If it is less than the source's number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        assert!(classes >= self.source.classes(), "there must be at least as many targets as classes");
        self.classes = classes;
        self
    }

    /// Sets the number of threads that read and augment the samples of a batch. The batches do not depend on it. If the
    /// threads cannot be started, the first batch is an error.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = (workers > 1).then(|| {
            let pool = ThreadPoolBuilder::new().num_threads(workers).thread_name(|i| format!("loader-{i}"));
            Arc::new(pool.build().map_err(|error| error.to_string()))
        });
        self
    }

    /// Makes the next `iter` start at this batch of this epoch. Later calls of `iter` start at batch 0 of the following
    /// epochs.
    pub fn seek(&self, epoch: usize, batch: usize) {
        self.cursor.epoch.store(epoch, Ordering::SeqCst);
        self.cursor.batch.store(batch, Ordering::SeqCst);
    }

    /// The number of batches per epoch.
    pub fn batches_per_epoch(&self) -> usize {
        if self.drop_last { self.range.len() / self.batch_size } else { self.range.len().div_ceil(self.batch_size) }
    }

    /// The indices of an epoch's samples in the source, in the order in which they are read.
    pub fn indices(&self, epoch: usize) -> Vec<usize> {
        let mut indices: Vec<usize> = self.range.clone().collect();
        if let Order::Shuffled { seed } = self.order {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch as u64);
            indices.shuffle(&mut rng);
        }
        indices.truncate(self.num_samples());
        indices
    }

    /// Returns the batches of the current epoch and advances the loader to the next epoch.
    pub fn batches(&self) -> Batches {
        let epoch = self.cursor.epoch.fetch_add(1, Ordering::SeqCst);
        let first = self.cursor.batch.swap(0, Ordering::SeqCst);
        let mut indices = self.indices(epoch);
        let total = indices.len();
        indices.drain(..total.min(first * self.batch_size));
        let number = (epoch * self.batches_per_epoch() + first) as u64;
        let reader = Reader {
            source: self.source.clone(),
            classes: self.classes,
            indices,
            batch_size: self.batch_size,
            number,
            batch: first,
            share: self.share,
            augmentation: self.augmentation.clone().map(|(augmentation, seed)| SeededAugmentation {
                augmentation,
                seed,
                epoch,
            }),
            workers: self.workers.clone(),
        };
        Batches {
            processed: total - reader.indices.len(),
            total,
            device: self.device.clone(),
            feed: match self.prefetch {
                0 => Feed::Inline(reader),
                batches => Feed::prefetch(reader, batches),
            },
        }
    }

    fn num_samples(&self) -> usize {
        if self.drop_last { self.batches_per_epoch() * self.batch_size } else { self.range.len() }
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(BurnBatches(self.batches()))
    }

    fn num_items(&self) -> usize {
        self.num_samples()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    /// A loader of the samples `start..end` of this loader's range. It counts its own epochs.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let range = self.range.start + start..(self.range.start + end).min(self.range.end);
        Arc::new(Self { range, cursor: Arc::default(), ..self.clone() })
    }
}

/// The batches of one epoch. The iterator ends after the first error.
pub struct Batches {
    processed: usize,
    total: usize,
    device: Device,
    feed: Feed,
}

impl Batches {
    /// The number of samples read so far, and the total.
    pub fn progress(&self) -> (usize, usize) {
        (self.processed, self.total)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.feed.next()? {
            Ok(batch) => batch,
            Err(error) => {
                self.feed = Feed::Done;
                return Some(Err(error));
            }
        };
        self.processed += batch.labels.len();
        Some(Ok(batch.into_batch(&self.device)))
    }
}

struct BurnBatches(Batches);

impl Iterator for BurnBatches {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|batch| batch.map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<Batch> for BurnBatches {
    fn progress(&self) -> Progress {
        Progress::new(self.0.processed, self.0.total, Some("items".into()))
    }
}

/// A batch in host memory.
struct HostBatch {
    shape: [usize; 3],
    pixels: Vec<f32>,
    labels: Vec<i32>,
    targets: Option<Vec<f32>>,
    number: u64,
}

impl HostBatch {
    fn into_batch(self, device: &Device) -> Batch {
        let (n, number) = (self.labels.len(), self.number);
        let [channels, height, width] = self.shape;
        let images = TensorData::new(self.pixels, [n, channels, height, width]);
        let labels = TensorData::new(self.labels, [n]);
        let targets = self.targets.map(|targets| {
            let classes = targets.len() / n;
            Tensor::from_data(TensorData::new(targets, [n, classes]), device)
        });
        Batch { images: Tensor::from_data(images, device), labels: Tensor::from_data(labels, device), targets, number }
    }
}

/// Reads the batches from the source, one after another.
struct Reader {
    source: Arc<dyn Source>,
    classes: usize,
    indices: Vec<usize>,
    batch_size: usize,
    number: u64,
    /// The index of the next batch in the epoch.
    batch: usize,
    share: (usize, usize),
    augmentation: Option<SeededAugmentation>,
    workers: Option<Workers>,
}

/// An augmentation with the seed and the epoch on which its random numbers depend.
struct SeededAugmentation {
    augmentation: Augmentation,
    seed: u64,
    epoch: usize,
}

/// The size of a block of random streams. Block 0 has one stream per epoch, for shuffling; block `e + 1` has one stream
/// per sample, for the augmentation of epoch `e`.
const STREAM_BLOCK: u64 = 1 << 32;

impl SeededAugmentation {
    fn rng(&self, sample: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream((self.epoch as u64 + 1) * STREAM_BLOCK + sample as u64);
        rng
    }
}

impl Iterator for Reader {
    type Item = Result<HostBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (rank, count) = self.share;
        while !self.indices.is_empty() {
            let take = self.batch_size.min(self.indices.len());
            let indices: Vec<usize> = self.indices.drain(..take).collect();
            let batch = (self.batch % count == rank).then(|| self.read(&indices));
            self.number += 1;
            self.batch += 1;
            if batch.is_some() {
                return batch;
            }
        }
        None
    }
}

impl Reader {
    fn read(&self, indices: &[usize]) -> Result<HostBatch, DataError> {
        let shape = self.source.shape();
        let values = shape.iter().product::<usize>();
        let mut pixels = vec![0.0; indices.len() * values];
        // Returns the sample's label and its mixup weight λ.
        let read = |(&index, image): (&usize, &mut [f32])| -> Result<(usize, f32), DataError> {
            let Some(seeded) = &self.augmentation else { return Ok((self.source.read(index, image)?, 1.0)) };
            let mut rng = seeded.rng(index);
            let augmentation = &seeded.augmentation;
            let label = self.source.read_augmented(index, augmentation, &mut rng, image)?;
            Ok((label, if augmentation.mixup > 0.0 { augmentation.mixup_weight(&mut rng) } else { 1.0 }))
        };
        let samples: Vec<(usize, f32)> = match &self.workers {
            None => indices.iter().zip(pixels.chunks_exact_mut(values)).map(read).collect::<Result<_, _>>()?,
            Some(workers) => {
                let pool = Result::as_ref(workers).map_err(|error| DataError::Threads(error.clone()))?;
                let read_all =
                    || indices.par_iter().zip(pixels.par_chunks_exact_mut(values)).map(read).collect::<Vec<_>>();
                pool.install(read_all).into_iter().collect::<Result<_, _>>()?
            }
        };
        let augmentation = self.augmentation.as_ref().map(|seeded| &seeded.augmentation);
        if augmentation.is_some_and(|augmentation| augmentation.mixup > 0.0) {
            mix(&mut pixels, values, &samples);
        }
        let targets = augmentation
            .filter(|augmentation| augmentation.has_soft_targets())
            .map(|augmentation| targets(&samples, self.classes, augmentation.label_smoothing as f32));
        let labels = samples.iter().map(|(label, _)| *label as i32).collect();
        Ok(HostBatch { shape, pixels, labels, targets, number: self.number })
    }
}

/// Mixup: of the `n` images in the batch, image `i` becomes `λᵢ xᵢ + (1 - λᵢ) xₙ₋₁₋ᵢ`. Each sample has its own weight
/// `λᵢ`.
fn mix(pixels: &mut [f32], values: usize, samples: &[(usize, f32)]) {
    let n = samples.len();
    for i in 0..n / 2 {
        let (front, back) = pixels.split_at_mut((n - 1 - i) * values);
        let (weight, other) = (samples[i].1, samples[n - 1 - i].1);
        for (a, b) in front[i * values..][..values].iter_mut().zip(&mut back[..values]) {
            (*a, *b) = (weight * *a + (1.0 - weight) * *b, other * *b + (1.0 - other) * *a);
        }
    }
}

/// The target probability of each class: the one-hot labels of the two images that [`mix`] combines, weighted like the
/// images and smoothed by ε.
fn targets(samples: &[(usize, f32)], classes: usize, epsilon: f32) -> Vec<f32> {
    let mut targets = vec![epsilon / classes as f32; samples.len() * classes];
    for (i, row) in targets.chunks_exact_mut(classes).enumerate() {
        let (label, weight) = samples[i];
        let (partner, _) = samples[samples.len() - 1 - i];
        row[label] += (1.0 - epsilon) * weight;
        row[partner] += (1.0 - epsilon) * (1.0 - weight);
    }
    targets
}

/// Reads batches in the caller's thread, or receives them from a background thread.
enum Feed {
    Inline(Reader),
    Prefetch {
        receiver: Receiver<Result<HostBatch, DataError>>,
        worker: Option<JoinHandle<()>>,
    },
    /// The background thread could not be started.
    Failed(Option<DataError>),
    Done,
}

impl Feed {
    /// Starts a background thread that keeps up to this many batches ready.
    fn prefetch(reader: Reader, batches: usize) -> Self {
        let (sender, receiver) = sync_channel(batches);
        let read = move || {
            for batch in reader {
                if sender.send(batch).is_err() {
                    break; // The receiver was dropped.
                }
            }
        };
        match thread::Builder::new().name("loader".into()).spawn(read) {
            Ok(worker) => Self::Prefetch { receiver, worker: Some(worker) },
            Err(error) => Self::Failed(Some(DataError::Threads(error.to_string()))),
        }
    }
}

impl Iterator for Feed {
    type Item = Result<HostBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Inline(reader) => reader.next(),
            Self::Prefetch { receiver, worker } => match receiver.recv() {
                Ok(batch) => Some(batch),
                Err(_) => worker.take()?.join().err().map(|panic| Err(DataError::Worker(panic_message(&*panic)))),
            },
            Self::Failed(error) => error.take().map(Err),
            Self::Done => None,
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sample `i` is a 1x1 image of value `i`; reading sample `bad` fails or panics.
    struct Counting {
        len: usize,
        bad: Option<usize>,
        panics: bool,
    }

    impl Source for Counting {
        fn shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }
        fn classes(&self) -> usize {
            2
        }
        fn len(&self) -> usize {
            self.len
        }
        fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize, DataError> {
            if self.bad == Some(index) {
                assert!(!self.panics, "cannot read sample {index}");
                return Err(DataError::Corrupt { file: format!("{index}.png"), reason: "truncated".into() });
            }
            pixels[0] = index as f32;
            Ok(index % 2)
        }
    }

    fn counting(len: usize) -> Loader {
        failing(len, None, false)
    }

    fn failing(len: usize, bad: Option<usize>, panics: bool) -> Loader {
        Loader::new(Arc::new(Counting { len, bad, panics }), 4, &Device::flex())
    }

    fn values(loader: &Loader) -> Vec<Vec<f32>> {
        loader.batches().map(|batch| batch.unwrap().images.into_data().try_to_vec().unwrap()).collect()
    }

    #[test]
    fn the_order_depends_only_on_seed_and_epoch() {
        let loader = counting(10).with_order(Order::Shuffled { seed: 3 });
        let (first, second) = (values(&loader), values(&loader));
        assert_ne!(first, second);
        loader.seek(1, 0);
        assert_eq!(values(&loader), second);
        let prefetching = counting(10).with_order(Order::Shuffled { seed: 3 }).with_prefetch(2);
        assert_eq!([values(&prefetching), values(&prefetching)], [first.clone(), second]);
        let mut seen: Vec<f32> = first.concat();
        seen.sort_by(f32::total_cmp);
        assert_eq!(seen, (0..10).map(|i| i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn seek_can_start_in_the_middle_of_an_epoch() {
        let loader = counting(10).with_order(Order::Shuffled { seed: 3 });
        let whole = values(&loader);
        loader.seek(0, 2);
        assert_eq!(values(&loader), whole[2..]);
        loader.seek(0, 9);
        assert!(values(&loader).is_empty());
    }

    #[test]
    fn a_short_last_batch_is_kept_or_dropped() {
        let loader = counting(10);
        assert_eq!((values(&loader).len(), loader.batches_per_epoch(), loader.num_items()), (3, 3, 10));
        let loader = counting(10).with_drop_last(true);
        assert_eq!((values(&loader).len(), loader.batches_per_epoch(), loader.num_items()), (2, 2, 8));
    }

    #[test]
    fn shares_are_disjoint_and_keep_the_numbers_of_batches() {
        let loader = || counting(22).with_order(Order::Shuffled { seed: 3 });
        let all = values(&loader());
        assert_eq!(all.len(), 6);
        for count in 1..=4 {
            for rank in 0..count {
                let share = loader().with_share(rank, count).with_prefetch(rank);
                let expected: Vec<Vec<f32>> = all.iter().skip(rank).step_by(count).cloned().collect();
                assert_eq!(values(&share), expected);
                share.seek(1, 3);
                let numbers: Vec<u64> = share.batches().map(|batch| batch.unwrap().number).collect();
                assert_eq!(numbers, (9..12).filter(|n| (n - 6) as usize % count == rank).collect::<Vec<u64>>());
            }
        }
    }

    #[test]
    fn labels_stay_with_their_images() {
        for batch in counting(10).with_order(Order::Shuffled { seed: 1 }).batches() {
            let batch = batch.unwrap();
            let images: Vec<f32> = batch.images.into_data().try_to_vec().unwrap();
            let labels: Vec<i64> = batch.labels.into_data().iter::<i64>().collect();
            assert!(images.iter().zip(labels).all(|(&x, label)| x as i64 % 2 == label));
        }
    }

    #[test]
    fn errors_and_panics_of_the_background_thread_reach_the_caller() {
        for prefetch in [0, 2] {
            let results: Vec<_> = failing(10, Some(5), false).with_prefetch(prefetch).batches().collect();
            assert_eq!(results.len(), 2);
            assert_eq!(results[1].as_ref().err().unwrap().to_string(), "5.png is invalid: truncated");
        }
        let results: Vec<_> = failing(10, Some(5), true).with_prefetch(1).batches().collect();
        assert_eq!(results.len(), 2);
        let error = results[1].as_ref().err().unwrap().to_string();
        assert_eq!(error, "the data loader's background thread panicked: cannot read sample 5");
    }

    #[test]
    fn threads_that_cannot_be_started_are_an_error() {
        let refused = || Some(Arc::new(Err("refused".to_string())));
        for prefetch in [0, 2] {
            let loader = Loader { workers: refused(), ..counting(10) }.with_prefetch(prefetch);
            let results: Vec<_> = loader.batches().collect();
            assert_eq!(results.len(), 1);
            let error = results[0].as_ref().err().unwrap().to_string();
            assert!(error.starts_with("cannot start a thread: refused; "), "{error}");
        }
    }

    #[test]
    fn batches_do_not_depend_on_the_number_of_workers() {
        let digits = crate::DataName::Digits.load().unwrap().train;
        let augmentation = Augmentation {
            crop: 1,
            flip: true,
            resized_crop: Some(0.3),
            cutout: 2,
            erase: 0.5,
            mixup: 0.4,
            label_smoothing: 0.1,
        };
        let batches = |seed, workers, prefetch, first: usize| {
            let loader = Loader::new(digits.clone(), 100, &Device::flex())
                .with_order(Order::Shuffled { seed })
                .with_augmentation(augmentation.clone(), seed)
                .with_workers(workers)
                .with_prefetch(prefetch);
            loader.seek(3, first);
            let read = |batch: Result<Batch, DataError>| {
                let batch = batch.unwrap();
                [batch.images.into_data(), batch.targets.unwrap().into_data()]
                    .map(|data| data.try_to_vec::<f32>().unwrap())
            };
            loader.batches().map(read).collect::<Vec<_>>()
        };
        let one = batches(5, 1, 0, 0);
        assert_eq!(one, batches(5, 4, 2, 0));
        assert_eq!(one[7..], batches(5, 2, 0, 7));
        assert_ne!(one, batches(6, 1, 0, 0));
    }

    #[test]
    fn mixup_weights_images_and_labels_equally() {
        let samples = [(0, 0.75), (1, 0.5), (2, 1.0)];
        let mut pixels = [8.0, 5.0, 4.0];
        mix(&mut pixels, 1, &samples);
        assert_eq!(pixels, [7.0, 5.0, 4.0]);
        let smoothed = targets(&samples, 4, 0.2);
        let expected = [0.65, 0.05, 0.25, 0.05, 0.05, 0.85, 0.05, 0.05, 0.05, 0.05, 0.85, 0.05];
        assert!(smoothed.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{smoothed:?}");
    }

    #[test]
    fn targets_exist_only_with_mixup_or_label_smoothing() {
        let loader = counting(4).with_augmentation(Augmentation::default(), 0);
        assert!(loader.batches().next().unwrap().unwrap().targets.is_none());
        let smoothing = Augmentation { label_smoothing: 0.1, ..Augmentation::default() };
        let targets = counting(4).with_augmentation(smoothing, 0).batches().next().unwrap().unwrap().targets.unwrap();
        assert_eq!(targets.dims(), [4, 2]);
    }

    #[test]
    fn a_slice_reads_only_its_range() {
        let loader = counting(10);
        let slice = loader.slice(4, 7);
        assert_eq!(slice.num_items(), 3);
        let first = slice.iter().next().unwrap().unwrap();
        assert_eq!(first.images.into_data().try_to_vec::<f32>().unwrap(), [4.0, 5.0, 6.0]);
        let mut iterator = loader.iter();
        iterator.next();
        assert_eq!(iterator.progress().items_processed, 4);
    }
}
