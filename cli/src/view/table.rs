use comfy_table::{Cell, ContentArrangement, Table, presets};

/// A table without lines, so that it can be read and cut alike. It keeps to `width` characters
/// where there is one.
pub fn table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    width: Option<u16>,
) -> String {
    let mut table = bare(width);
    table.set_header(header.iter().map(Cell::new));
    table.add_rows(rows);
    finished(&table)
}

/// A title, and below it one value a line. Values that are empty are left out.
pub fn details(title: &str, values: &[(&str, String)], width: Option<u16>) -> String {
    let mut table = bare(width);
    for (name, value) in values.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([format!("  {name}"), value.clone()]);
    }
    format!("{title}\n{}", finished(&table))
}

fn bare(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    table
}

/// Without the spaces that pad the first and last column.
fn finished(table: &Table) -> String {
    table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}
