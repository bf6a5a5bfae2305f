use crate::{args::RecipesArgs, output};
use residual_train::Recipe;
use std::fmt::Write;

/// Lists the recipes.
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
    text += "\n`residual train --recipe NAME --net NET --print-config` prints every setting of one\n";
    output::print(&text)
}
