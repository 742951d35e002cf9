//! `audit-operator policy presets`: the policies that come with the operator.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::Output;
use crate::cli::print;
use crate::policy::{PresetPolicy, presets};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print this one, with the reason for each rule; without it all are listed.
    name: Option<String>,
    /// Form of what is shown.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// A contract: other programs read it.
#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    version: &'a str,
    rules: usize,
    about: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all = presets();
    let chosen: Vec<&PresetPolicy> = match &args.name {
        None => all.iter().collect(),
        Some(name) => all.iter().filter(|preset| [preset.name, unversioned(preset)].contains(&name.as_str())).collect(),
    };
    if let ([], Some(name)) = (chosen.as_slice(), &args.name) {
        let names: Vec<&str> = all.iter().map(unversioned).collect();
        bail!("there is no preset {name:?}; there are: {}", names.join(", "));
    }
    let mut out = String::new();
    for preset in chosen {
        match (args.output, &args.name) {
            (Output::Text, Some(_)) => out.push_str(preset.text),
            (Output::Text, None) => {
                let (name, rules) = (unversioned(preset), preset.policy.rules.len());
                writeln!(out, "{name:12} {:18} {rules:3} rules  {}", preset.name, about(preset))?;
            }
            (Output::Json, name) => {
                let record = Record {
                    name: unversioned(preset),
                    version: preset.name,
                    rules: preset.policy.rules.len(),
                    about: about(preset),
                    policy: name.is_some().then_some(preset.text),
                };
                writeln!(out, "{}", serde_json::to_string(&record)?)?;
            }
        }
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// The name that a Setup uses: always of the newest version.
fn unversioned(preset: &PresetPolicy) -> &str {
    preset.name.rsplit_once('-').map_or(preset.name, |(name, _)| name)
}

/// The comment at the top, as one line.
fn about(preset: &PresetPolicy) -> String {
    let lines = preset.text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_name_a_version_and_a_sentence() {
        for preset in presets() {
            assert!(preset.name.ends_with("-2026.1"), "{}", preset.name);
            assert!(about(&preset).ends_with('.') && about(&preset).len() < 160, "{}: {}", preset.name, about(&preset));
        }
    }
}
