//! Markdown tables as aligned text, for terminals.

/// Replaces each Markdown table in a text by aligned columns. Columns whose rule ends in a colon are aligned to the
/// right. The words of a header are stacked, so that a column is only as wide as its widest word or cell.
pub(crate) fn aligned(markdown: &str) -> String {
    let mut text = String::new();
    let mut table: Vec<Vec<&str>> = Vec::new();
    for line in markdown.lines() {
        if let Some(cells) = line.strip_prefix('|') {
            table.push(cells.trim_end().trim_end_matches('|').split('|').map(str::trim).collect());
            continue;
        }
        text += &columns(&std::mem::take(&mut table));
        text += line;
        text.push('\n');
    }
    text + &columns(&table)
}

fn columns(table: &[Vec<&str>]) -> String {
    let [header, rules, rows @ ..] = table else { return String::new() };
    let words: Vec<Vec<&str>> = header.iter().map(|cell| cell.split(' ').collect()).collect();
    let height = words.iter().map(Vec::len).max().unwrap_or_default();
    let stacked = (0..height).map(|line| {
        // The last words are on the last line.
        let word = |words: &Vec<&str>| (line + words.len()).checked_sub(height).map_or("", |i| words[i]).to_string();
        words.iter().map(word).collect::<Vec<String>>()
    });
    let rows = rows.iter().map(|row| row.iter().map(ToString::to_string).collect());
    let lines: Vec<Vec<String>> = stacked.chain(rows).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if rules.get(column).is_some_and(|rule| rule.ends_with(':')) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_columns_and_other_lines_stay() {
        let markdown = "Error in per cent:\n\n| network | training error, % | test |\n|---|--:|--:|\n| a | 1.25 ± 0.10 | 3.00 |\n| resnet20 | 10.00 | - |\n\nEnd.\n";
        let expected = "Error in per cent:\n\n             training\n               error,\n\
                        network             %  test\na         1.25 ± 0.10  3.00\nresnet20        10.00     -\n\nEnd.\n";
        assert_eq!(aligned(markdown), expected);
    }
}
