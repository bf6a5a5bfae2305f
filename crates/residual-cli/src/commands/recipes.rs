use crate::output;
use residual_train::Recipe;
use std::fmt::Write;

/// List recipes: named settings for `residual train`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  residual train --recipe quick-cifar --net resnet20
  residual train --recipe he2015-cifar --net resnet110 --print-config")]
pub(crate) struct RecipesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command `recipes`.
pub(crate) fn recipes(args: &RecipesArgs) -> anyhow::Result<()> {
    if args.json {
        let recipes = Recipe::ALL.iter().map(|recipe| {
            serde_json::json!({ "name": recipe.to_string(), "data": recipe.data(), "summary": recipe.summary() })
        });
        return output::print_json(&recipes.collect::<Vec<_>>());
    }
    let mut text = String::new();
    for recipe in Recipe::ALL {
        let _ = writeln!(text, "{recipe:<14} {:<8} {}", recipe.data(), recipe.summary());
    }
    text += "\n`residual train --recipe NAME --net NET --print-config` prints every setting of a recipe\n";
    output::print(&text)
}
