//! `audit-operator status`: the Revision that a node runs and its last change, read from its disk.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::journal::{Progress, Stage, Verdict};
use crate::node::State;
use crate::node::files::Host;
use crate::plan;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Root directory of the node's file system: / on the node itself.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// Form of the output. JSON is the node's journal as it is stored.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state = State::new(Host::of_node(&args.host_root)?);
    let journal = state.journal()?;
    if args.output == Output::Json {
        print!("{}", journal.to_json());
        return Ok(ExitCode::SUCCESS);
    }
    let observed = crate::node::observe(&state.host, None)?;
    let carried = static_pod::read(&observed.manifest)?.revision;
    println!("Manifest:   {}", carried.map_or("no revision".to_string(), |revision| format!("revision {revision}")));
    match &journal.confirmed {
        Some(confirmed) => println!("Confirmed:  revision {} at {}", confirmed.revision, confirmed.at),
        None => println!("Confirmed:  nothing"),
    }
    if let Some(change) = &journal.change {
        let target = plan::name(change.target.as_ref());
        let (state, cause) = match &change.progress {
            Progress::UnderWay(Stage::Staged) => ("staged", None),
            Progress::UnderWay(Stage::TakingOut { .. }) => ("taking out the old manifest", None),
            Progress::UnderWay(Stage::Verifying { .. }) => ("verifying the new manifest", None),
            Progress::UnderWay(Stage::RollingBack(rollback)) => ("rolling back", Some(&rollback.cause)),
            Progress::Ended { verdict: Verdict::Confirmed, .. } => ("confirmed", None),
            Progress::Ended { verdict: Verdict::RolledBack(cause), .. } => ("rolled back", Some(cause)),
            Progress::Ended { verdict: Verdict::Abandoned(cause), .. } => ("abandoned", Some(cause)),
        };
        println!("Last change: to {target}: {state}");
        if let Some(cause) = cause {
            println!("             {}: {}", cause.reason, cause.message);
        }
    }
    for failure in &journal.failures {
        println!("Failed:     {} at {}: {}", plan::name(failure.target.as_ref()), failure.at, failure.cause.message);
        if let Some(words) = &failure.cause.last_words {
            println!("             {words}");
        }
    }
    let verdict = journal.change.as_ref().and_then(|change| change.verdict());
    let is_bad = verdict.is_some_and(|verdict| *verdict != Verdict::Confirmed);
    Ok(if is_bad { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
