//! Prints every field of a file that is given twice, and the file as JSON.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: fields FILE")?;
    let document = kube_yaml::fields::read(&std::fs::read_to_string(&path)?)?;
    for (field, place) in &document.twice {
        println!("{path}:{}:{}: {field} is given twice; the last one counts", place.line, place.column);
    }
    println!("{:#}", document.value);
    Ok(())
}
