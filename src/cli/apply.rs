//! `audit-operator apply` and `restore`: change one node without a cluster.
//!
//! The guard's loop runs in this process. If the process is killed, the journal says how far the change is, and the
//! next call continues it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::render::print_findings;
use super::{print, say};
use crate::api::Rollout;
use crate::floor::Floor;
use crate::journal::{Change, Verdict};
use crate::node::files::Host;
use crate::node::{self, State, guard};
use crate::plan::{self, Desired, GuardKind, Plan, Requester};
use crate::render::render;
use crate::validate::{Capabilities, KubernetesVersion};

#[derive(clap::Args)]
pub(super) struct ApplyArgs {
    /// YAML with one AuditSetup and the Secrets, ConfigMaps and Services that it refers to; - is standard input. Can be
    /// given several times.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Root directory of the node's file system: / on the node itself.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// File with the floor of the cluster, from the ConfigMap audit-operator-floor. Default: no granted
    /// risks, logs below /var/log/kubernetes.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// Print the plan and change nothing. Exits with 1 if there is something to do.
    #[arg(long)]
    dry_run: bool,
    /// Version of kube-apiserver. Default: from the tag of its image.
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<KubernetesVersion>,
}

#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// Root directory of the node's file system: / on the node itself.
    #[arg(long, value_name = "DIR")]
    host_root: PathBuf,
    /// Print the plan and change nothing. Exits with 1 if there is something to do.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn apply(args: &ApplyArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let host = Host::of_node(&args.host_root)?;
    let input = Input::read(&args.files)?;
    let version = match args.kubernetes_version {
        Some(version) => version,
        None => version_of(&node::observe(&host, None)?.manifest)?,
    };
    let floor = Floor::load(args.floor.as_deref())?;
    let valid = input.validate(Capabilities::of(version), &floor)?;
    let rendered = render(&valid);
    print_findings(&rendered);
    if !args.dry_run {
        // Credentials first: kube-apiserver does not start with a kubeconfig that names a missing file.
        for (path, bytes) in &rendered.credentials {
            host.make_directory(&path.directory.path(), 0o700)?;
            host.replace(&path.on_node(), bytes, 0o600)?;
        }
    }
    let rollout = input.setup.spec.rollout.clone();
    let desired = Desired {
        revision: Some(rendered.revision),
        requester: Requester::Person,
        rollout,
        floor,
        guard: GuardKind::ThisProcess,
    };
    reach(&host, &desired, args.dry_run, stop).await
}

/// The version of the kube-apiserver that a manifest runs, by the tag of its image.
fn version_of(manifest: &str) -> anyhow::Result<KubernetesVersion> {
    let image = static_pod::read(manifest)?.image;
    let tag = image.split('@').next().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
    tag.parse().map_err(|_| {
        anyhow::anyhow!("the tag of the image {image} is not a version of kube-apiserver: give --kubernetes-version")
    })
}

pub(super) async fn restore(args: &RestoreArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let host = Host::of_node(&args.host_root)?;
    let desired = Desired {
        revision: None,
        requester: Requester::Person,
        rollout: Rollout::default(),
        floor: Floor::default(),
        guard: GuardKind::ThisProcess,
    };
    reach(&host, &desired, args.dry_run, stop).await
}

/// Plans, stages and watches, here and now.
async fn reach(host: &Host, desired: &Desired, dry_run: bool, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let state = State::new(host.clone());
    let content = desired.revision.as_ref().map(|revision| &revision.content);
    if dry_run {
        return show(&plan::plan(desired, &node::observe(host, content)?));
    }
    let Some(locked) = state.try_lock()? else {
        bail!(
            "another process is changing this node: a guard, or another call of this command. Wait until it has finished"
        );
    };
    if let Some(change) = locked.journal()?.under_way() {
        say(&format!("Continuing the unfinished change to {}.", plan::name(change.target.as_ref())));
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
    let change = guard::watch(&locked, &stop).await;
    let change = change
        .context("interrupted before the change was confirmed or rolled back; run the command again to continue it")?;
    // A continued change may have had another target.
    if change.verdict() == Some(&Verdict::Confirmed)
        && change.target.as_ref() == desired.revision.as_ref().map(|it| &it.id)
    {
        match &desired.revision {
            Some(revision) => node::remove_unused(&locked, Some(revision))?,
            None => node::leave(locked)?,
        }
    }
    print_verdict(&change)
}

/// Prints a plan. Exit status 1 unless the node is up to date.
fn show(plan: &Plan) -> anyhow::Result<ExitCode> {
    print(&plan.to_string())?;
    Ok(ExitCode::from(u8::from(*plan != Plan::Nothing(plan::Idle::AsDesired))))
}

fn print_verdict(change: &Change) -> anyhow::Result<ExitCode> {
    let target = plan::name(change.target.as_ref());
    let (how, cause) = match change.verdict() {
        Some(Verdict::Confirmed) => {
            print(&format!("Confirmed: kube-apiserver runs with {target}.\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Verdict::RolledBack(cause)) => ("Rolled back", cause),
        Some(Verdict::Abandoned(cause)) => ("Abandoned", cause),
        None => bail!("the change to {target} is still in progress"),
    };
    print(&format!("{how}: {target}: {}\n", cause.message))?;
    if let Some(words) = &cause.last_words {
        print(&format!("Last line of kube-apiserver: {words}\n"))?;
    }
    Ok(ExitCode::from(1))
}
