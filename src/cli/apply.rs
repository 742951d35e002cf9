//! `audit-operator apply` and `restore`: one node, without a cluster's help.
//!
//! The guard's loop runs within this process. If that is killed, the journal says how far the change is, and the next call takes it up there.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::input::{Input, kubernetes_minor};
use super::render::tell_findings;
use super::{print, say};
use crate::api::Rollout;
use crate::floor::Floor;
use crate::journal::{Change, Stage};
use crate::node::files::Host;
use crate::node::{self, State, guard};
use crate::plan::{self, Desired, Plan};
use crate::render::render;
use crate::validate::Capabilities;

#[derive(clap::Args)]
pub(super) struct ApplyArgs {
    /// YAML with one AuditSetup and, as far as it refers to them, Secrets, ConfigMaps and Services; - is standard input. May
    /// be given several times.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Root of the node's file system.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// The floor of the cluster, as in the ConfigMap audit-operator-floor. Without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// Print what would be done, and do nothing; exit with 1 if there is something.
    #[arg(long)]
    dry_run: bool,
    /// Version of kube-apiserver, where the tag of its image does not tell.
    #[arg(long, value_name = "VERSION", value_parser = kubernetes_minor)]
    kubernetes_version: Option<u32>,
}

#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// Root of the node's file system.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// Print what would be done, and do nothing; exit with 1 if there is something.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn apply(args: &ApplyArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let host = Host::of_node(&args.host_root)?;
    let input = Input::read(&args.files)?;
    let minor = match args.kubernetes_version {
        Some(minor) => minor,
        None => minor_of(&node::observe(&host, None)?.manifest)?,
    };
    let floor = Floor::load(args.floor.as_deref())?;
    let valid = input.validate(Capabilities::of(minor), &floor)?;
    let rendered = render(&valid);
    tell_findings(&rendered);
    if !args.dry_run {
        // Credentials first: a kubeconfig that names a file which is not there stops kube-apiserver.
        for (path, bytes) in &rendered.credentials {
            host.make_directory(&path.directory.path(), 0o700)?;
            host.replace(&path.on_node(), bytes, 0o600)?;
        }
    }
    let rollout = input.setup.spec.rollout.clone();
    let desired = Desired {
        revision: Some(rendered.revision),
        setup_generation: None,
        rollout,
        floor,
        may_change: true,
        guard: None,
    };
    bring_about(&host, &desired, args.dry_run, stop).await
}

/// Minor version of the kube-apiserver that a manifest runs, by the tag of its image.
fn minor_of(manifest: &str) -> anyhow::Result<u32> {
    let image = static_pod::read(manifest)?.image;
    let tag = image.split('@').next().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
    kubernetes_minor(tag.trim_start_matches('v')).map_err(|_| {
        anyhow::anyhow!("the image {image} does not tell the version of kube-apiserver: give --kubernetes-version")
    })
}

pub(super) async fn restore(args: &RestoreArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let host = Host::of_node(&args.host_root)?;
    let desired = Desired {
        revision: None,
        setup_generation: None,
        rollout: Rollout::default(),
        floor: Floor::default(),
        may_change: true,
        guard: None,
    };
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
        return show(&plan::plan(desired, &node::observe(host, content)?));
    }
    let Some(locked) = state.try_lock()? else {
        bail!("somebody else is changing this node: a guard, or another call of this command");
    };
    if let Some(change) = locked.journal()?.unconfirmed() {
        say(&format!("Taking up the change to {} that was not finished.", plan::name(change.target.as_ref())));
    } else {
        let plan = plan::plan(desired, &node::observe(host, content)?);
        let code = show(&plan)?;
        let Plan::Change(steps) = plan else {
            if desired.revision.is_none() && plan == Plan::Nothing(plan::Idle::AsDesired) {
                node::leave(locked)?;
            }
            return Ok(code);
        };
        node::stage(&locked, &steps)?;
    }
    say("Waiting for kube-apiserver …");
    let change = guard::watch(&locked, &stop).await?;
    let change = change.context("stopped before the change was confirmed; call again to take it up")?;
    // What was taken up may have had another target.
    if change.stage == Stage::Confirmed && change.target.as_ref() == desired.revision.as_ref().map(|it| &it.id) {
        match &desired.revision {
            Some(revision) => node::remove_unused(&locked, Some(revision))?,
            None => node::leave(locked)?,
        }
    }
    tell(&change)
}

/// Prints a plan. Exit status 1 where the node does not have what it shall have.
fn show(plan: &Plan) -> anyhow::Result<ExitCode> {
    print(&plan.to_string())?;
    Ok(ExitCode::from(u8::from(*plan != Plan::Nothing(plan::Idle::AsDesired))))
}

fn tell(change: &Change) -> anyhow::Result<ExitCode> {
    let target = plan::name(change.target.as_ref());
    if change.stage == Stage::Confirmed {
        print(&format!("Confirmed: kube-apiserver runs with {target}.\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let cause = change.cause.as_ref();
    print(&format!(
        "{}: {target}: {}\n",
        if change.stage == Stage::RolledBack { "Taken back" } else { "Given up" },
        cause.map_or("", |cause| &cause.message)
    ))?;
    if let Some(words) = cause.and_then(|cause| cause.last_words.as_ref()) {
        print(&format!("Last words of kube-apiserver: {words}\n"))?;
    }
    Ok(ExitCode::from(1))
}
