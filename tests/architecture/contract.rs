//! Reads proto files as their readers do: what is declared, and whether a comment stands right above it.

/// Where a declaration has no comment: the line, and what it says.
pub(crate) fn uncommented(text: &str) -> Vec<(usize, String)> {
    let mut missing = Vec::new();
    let mut is_explained = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("//") {
            is_explained = true;
            continue;
        }
        if is_declaration(line) && !is_explained {
            missing.push((number + 1, line.to_owned()));
        }
        is_explained = false;
    }
    missing
}

/// Messages, services, enums and calls by their word, fields and values by their number. A `oneof` is explained by its fields.
fn is_declaration(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    if matches!(first, "message" | "service" | "enum" | "rpc") {
        return true;
    }
    let Some((before, after)) = line.split_once('=') else {
        return false;
    };
    let is_option = matches!(first, "syntax" | "option" | "reserved");
    let number = after.trim_start().trim_start_matches('-');
    !is_option && !before.trim().is_empty() && number.starts_with(|c: char| c.is_ascii_digit())
}
