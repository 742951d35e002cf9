//! Golden files: the expected output, kept beside its input. `UPDATE_CASES=1 cargo test` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{root, setting};

/// The entries of a directory of cases, sorted. A new case is found by being there.
pub fn cases(directory: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "{directory} is empty");
    found
}

/// Collects differences from golden files. [`Self::end`] fails the test if there is one.
#[derive(Default)]
#[must_use]
pub struct Differences(Vec<String>);

impl Differences {
    /// Compares a golden file with the output; `None`: there must be no such file.
    pub fn compare(&mut self, path: &Path, have: Option<&[u8]>) {
        if setting("UPDATE_CASES").is_some() {
            match have {
                Some(have) => write(path, have),
                None => drop(fs::remove_file(path)),
            }
            return;
        }
        let want = fs::read(path).ok();
        if want.as_deref() != have {
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let note = if want.is_none() { " (there is none)" } else { "" };
            self.add(format!("{}{note}\n{}", path.display(), difference(&text(want.as_deref()), &text(have))));
        }
    }

    /// Adds another failure of the same test.
    pub fn add(&mut self, wrong: String) {
        self.0.push(wrong);
    }

    pub fn end(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
}

fn difference(want: &str, have: &str) -> String {
    similar::TextDiff::from_lines(want, have).unified_diff().header("want", "have").to_string()
}
