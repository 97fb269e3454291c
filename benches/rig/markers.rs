//! The parts of a document that a benchmark writes, between markers that stand in the document.

use std::io;

/// The text with what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` replaced.
///
/// # Errors
/// If the markers are not there.
pub(crate) fn replace(text: &str, name: &str, with: &str) -> io::Result<String> {
    let (begin, end) = (
        format!("<!-- {name}:begin -->"),
        format!("<!-- {name}:end -->"),
    );
    let parts = text.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else {
        return Err(io::Error::other(format!("has no markers for {name}")));
    };
    Ok(format!("{before}{begin}\n{}\n{end}{after}", with.trim()))
}
