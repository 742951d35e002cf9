//! `audit-operator apply` and `restore`: one node, without a cluster's help.
//!
//! The guard's loop runs within this process. If that is killed, the journal says how far the change is, and the next call takes it up there.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::api::Rollout;
use crate::journal::{Change, Stage};
use crate::node::files::Host;
use crate::node::{self, State, guard};
use crate::plan::{self, Desired, Plan};

#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// Root of the node's file system.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn restore(args: &RestoreArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let host = Host::new(&args.host_root);
    let desired = Desired { revision: None, setup_generation: i64::MAX, rollout: Rollout::default(), guard: None };
    bring_about(&host, &desired, args.dry_run, stop).await
}

/// Plans, stages and watches, here and now.
async fn bring_about(
    host: &Host,
    desired: &Desired,
    dry_run: bool,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let state = State::new(host.clone());
    let content = desired.revision.as_ref().map(|revision| &revision.content);
    if dry_run {
        return Ok(show(&plan::plan(desired, &node::observe(host, content)?)));
    }
    let Some(locked) = state.try_lock()? else {
        bail!("somebody else is changing this node: a guard, or another call of this command");
    };
    if let Some(change) = locked.journal()?.unconfirmed() {
        eprintln!("Taking up the change to {} that was not finished.", plan::name(change.target.as_ref()));
    } else {
        let plan = plan::plan(desired, &node::observe(host, content)?);
        let code = show(&plan);
        let Plan::Change(steps) = plan else { return Ok(code) };
        node::stage(&locked, &steps)?;
    }
    eprintln!("Waiting for kube-apiserver …");
    let change = guard::watch(&locked, &stop).await?;
    let change = change.context("stopped before the change was confirmed; call again to take it up")?;
    Ok(tell(&change))
}

/// Prints a plan. Exit status 1 where it is not clean.
fn show(plan: &Plan) -> ExitCode {
    print!("{plan}");
    match plan {
        Plan::Change(_) | Plan::Nothing(plan::Idle::AsDesired | plan::Idle::Changing | plan::Idle::Paused) => {
            ExitCode::SUCCESS
        }
        Plan::Nothing(plan::Idle::Quarantined(_)) | Plan::Refused(_) => ExitCode::from(1),
    }
}

fn tell(change: &Change) -> ExitCode {
    let target = plan::name(change.target.as_ref());
    if change.stage == Stage::Confirmed {
        println!("Confirmed: kube-apiserver runs with {target}.");
        return ExitCode::SUCCESS;
    }
    let cause = change.cause.as_ref();
    println!(
        "{}: {target}: {}",
        if change.stage == Stage::RolledBack { "Taken back" } else { "Given up" },
        cause.map_or("", |cause| &cause.message)
    );
    if let Some(words) = cause.and_then(|cause| cause.last_words.as_ref()) {
        println!("Last words of kube-apiserver: {words}");
    }
    ExitCode::from(1)
}
