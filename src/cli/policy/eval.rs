//! `audit-operator policy eval`: the decisions of a policy about requests.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Output, is_stdin, lines, load_file, policy_minor};
use crate::api::{Level, Stage};
use audit_policy::{Attributes, Evaluator};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The policy file; - is standard input.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Requests, one JSON object per line; - is standard input. A record is {"user": {"name", "groups": []}, "verb",
    /// "namespace", "apiGroup", "apiVersion", "resource", "subresource", "name", "resourceRequest": bool, "path"}. A
    /// record without a user is a request whose authentication failed. Other absent fields are empty.
    #[arg(long, value_name = "FILE")]
    attributes: PathBuf,
    /// Version of kube-apiserver that loads the policy: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// Form of the decisions, one per line in the order of the requests.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// A contract: other programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    level: Level,
    omit_stages: &'a [Stage],
    omit_managed_fields: bool,
    rule: Option<usize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if is_stdin(&args.policy) && is_stdin(&args.attributes) {
        bail!("--policy and --attributes cannot both be standard input");
    }
    let policy = load_file(&args.policy, args.kubernetes_version)?;
    let evaluator = Evaluator::new(&policy);
    let answer = |line: &str, out: &mut dyn Write| {
        let request: Attributes = lines::record(line)?;
        let decision = evaluator.decide(&request);
        match args.output {
            Output::Json => serde_json::to_writer(
                &mut *out,
                &Record {
                    level: decision.level,
                    omit_stages: decision.omit_stages,
                    omit_managed_fields: decision.omit_managed_fields,
                    rule: decision.rule,
                },
            )?,
            Output::Text => {
                write!(out, "{:?}", decision.level)?;
                match decision.rule {
                    Some(rule) => write!(out, " by rule {rule}")?,
                    None => write!(out, ": no rule matches")?,
                }
                for (i, stage) in decision.omit_stages.iter().enumerate() {
                    write!(out, "{}{stage:?}", if i == 0 { ", without " } else { " and " })?;
                }
            }
        }
        writeln!(out)?;
        Ok(())
    };
    if is_stdin(&args.attributes) {
        lines::answer("standard input", std::io::stdin().lock(), answer)?;
    } else {
        let shown = args.attributes.display().to_string();
        // A pipe will do.
        let file = File::open(&args.attributes).with_context(|| format!("cannot read {shown}"))?;
        lines::answer(&shown, file, answer)?;
    }
    Ok(ExitCode::SUCCESS)
}
