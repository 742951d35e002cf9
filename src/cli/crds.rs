//! `audit-operator crds`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::api;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Write one file per CRD to this directory instead of printing them.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    for (name, yaml) in api::crds_yaml() {
        match &args.output_dir {
            Some(dir) => {
                let path = dir.join(format!("{name}.yaml"));
                #[expect(clippy::disallowed_methods, reason = "output for the user, not a file of the host")]
                std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => println!("---\n{yaml}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
