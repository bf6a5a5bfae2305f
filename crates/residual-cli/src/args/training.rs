use super::{
    AugmentationArgs, DataArgs, NetworkArgs, OptimizerArgs, Reset, ScheduleArgs, fit_side, one, or_word, words,
};
use residual_data::DataConfig;
use residual_model::{NetName, Part};
use residual_train::{Evaluate, OnNan, Recipe, RecipeOverrides, TrainConfig};

/// All settings of a training except its network's name and its seed. `train` and `sweep` share them. A list of values
/// is an axis of a sweep.
#[derive(Clone, clap::Args)]
#[group(id = "training_settings", multiple = true)]
pub(crate) struct TrainingArgs {
    /// Use the settings of a recipe; other flags override them
    ///
    /// `residual recipes` lists the recipes.
    #[arg(long, help_heading = "Training", conflicts_with = "config", value_parser = words::<Recipe>())]
    pub(crate) recipe: Option<Recipe>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) augmentation: AugmentationArgs,
    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    /// Passes over the training set
    ///
    /// Default: from the recipe or configuration, else 10. In a sweep: 20 for
    /// dense nets and 7 for others, or 30 and 10 if any net has more than 200
    /// layers.
    #[arg(long, help_heading = "Training", verbatim_doc_comment)]
    pub(crate) epochs: Option<usize>,
    /// Stop after this many optimizer steps, or none
    #[arg(long, help_heading = "Training", value_parser = or_word::<usize>("none"))]
    pub(crate) iterations: Option<Reset<usize>>,
    /// Samples per batch [default: 64]
    #[arg(long, help_heading = "Training", value_delimiter = ',')]
    pub(crate) batch_size: Option<Vec<usize>>,
    /// Batches over which each optimizer step averages gradients [default: 1]
    #[arg(long, help_heading = "Training", value_name = "BATCHES")]
    pub(crate) accumulate: Option<usize>,
    /// Average the weights with this decay; evaluate and keep the average
    ///
    /// The average is an exponential moving average (EMA). none: no average.
    #[arg(long, help_heading = "Training", value_parser = or_word::<f64>("none"), value_name = "DECAY", allow_negative_numbers = true)]
    pub(crate) ema: Option<Reset<f64>>,
    /// Parts to freeze, separated by commas: stem, layer1 to layer4, head
    ///
    /// none: no part.
    #[arg(long, help_heading = "Training", value_delimiter = ',', value_parser = or_word::<Part>("none"))]
    pub(crate) freeze: Option<Vec<Reset<Part>>>,
    /// Stop if the test loss has not improved for this many epochs, or none
    #[arg(long, help_heading = "Training", value_parser = or_word::<usize>("none"), value_name = "EPOCHS")]
    pub(crate) patience: Option<Reset<usize>>,
    /// When to measure the errors by clean passes
    ///
    /// every-epoch: training and test error after every epoch.
    /// test-every-epoch: test error after every epoch, both at the end.
    /// at-end: both at the end.
    /// Default: from the recipe or configuration, else every-epoch, or at-end
    /// in a sweep.
    #[arg(long, help_heading = "Training", verbatim_doc_comment, value_parser = words::<Evaluate>())]
    pub(crate) evaluate: Option<Evaluate>,
    /// What to do if the loss becomes NaN or infinite [default: stop]
    ///
    /// rewind: return to the start of the epoch and halve the learning rate.
    #[arg(long, help_heading = "Training", value_parser = words::<OnNan>())]
    pub(crate) on_nan: Option<OnNan>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl TrainingArgs {
    /// The settings of the recipe for a network, or `None` without a recipe.
    pub(crate) fn of_recipe(&self, net: NetName, data: DataConfig) -> anyhow::Result<Option<TrainConfig>> {
        let Some(recipe) = self.recipe else { return Ok(None) };
        let overrides = RecipeOverrides {
            epochs: self.epochs,
            batch_size: one("--batch-size", self.batch_size.as_deref())?,
            accumulate: self.accumulate,
        };
        Ok(Some(recipe.config_with(net, data, overrides)?))
    }

    /// The dataset that the flags describe: the recipe's, or this one, with the settings whose flags are set.
    pub(crate) fn dataset(&self, usual: DataConfig) -> anyhow::Result<DataConfig> {
        self.data.apply(self.recipe.map_or(usual, Recipe::data))
    }

    /// Overrides the settings whose flags are set, except for those of the dataset.
    pub(crate) fn apply(&self, config: TrainConfig) -> anyhow::Result<TrainConfig> {
        let mut config = self.optimizer.apply(config)?;
        config.augmentation = self.augmentation.apply(&config.augmentation);
        fit_side(&mut config.data, &config.network);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.batch_size = one("--batch-size", self.batch_size.as_deref())?.unwrap_or(config.batch_size);
        config.iterations = Reset::or(self.iterations.as_ref(), config.iterations);
        config.accumulate = self.accumulate.unwrap_or(config.accumulate);
        config.patience = Reset::or(self.patience.as_ref(), config.patience);
        config.ema = Reset::or(self.ema.as_ref(), config.ema);
        config.evaluate = self.evaluate.unwrap_or(config.evaluate);
        config.on_nan = self.on_nan.unwrap_or(config.on_nan);
        if let Some(parts) = &self.freeze {
            config.freeze = parts.iter().filter_map(|part| part.0).collect();
        }
        self.schedule.apply(&mut config.schedule)?;
        let init = config.network.init;
        let network = self.network.apply(config.network.clone(), init)?;
        Ok(config.with_network(network))
    }
}
