//! Files that a test compares with what came out, and writes with `UPDATE_CASES=1`.

use std::fs;
use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "a test is told so by the environment")]
pub fn is_update() -> bool {
    std::env::var("UPDATE_CASES").is_ok()
}

#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
}

/// What differs, by lines.
pub fn difference(want: &str, have: &str) -> String {
    similar::TextDiff::from_lines(want, have).unified_diff().header("want", "have").to_string()
}
