//! Sets one audit flag in a manifest and prints the new text; the other audit flags are removed.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use static_pod::{Intent, edit};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, value] = &arguments[..] else { return Err("usage: flag MANIFEST NAME VALUE".into()) };
    let intent = Intent {
        revision: "r-0000000000".into(),
        flags: [(name.clone(), value.clone())].into(),
        defaults: [].into(),
        mounts: vec![],
    };
    let edited = edit(&std::fs::read_to_string(path)?, &intent)?;
    for flag in &edited.taken_over {
        eprintln!("changed or removed: {flag}");
    }
    print!("{}", edited.text);
    Ok(())
}
