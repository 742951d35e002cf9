//! `audit-operator render`: shows the Revision of a Setup and the edit of a manifest, without a cluster and without
//! touching a host.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Serialize;
use similar::TextDiff;

use super::input::{Input, below};
use crate::api::{SetupFinding, SinkKind};
use crate::floor::Floor;
use crate::health::way::{NamedBy, Way};
use crate::plan::check_manifest;
use crate::render::{Rendered, intent, render};
use crate::revision::KUBECONFIG_FILE;
use crate::validate::{Capabilities, KubernetesVersion};

/// Where kubeadm keeps the manifest.
const MANIFEST: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";

#[derive(clap::Args)]
pub(super) struct Args {
    /// YAML with one AuditSetup and the Secrets, ConfigMaps and Services that it refers to; - is standard input. Can be
    /// given several times.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A static-pod manifest of kube-apiserver: also show it with the Setup applied.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Show only the difference in the manifest. Exits with 1 if there is one.
    #[arg(long, requires = "manifest", conflicts_with = "output_dir")]
    diff: bool,
    /// Write the files to this directory, with the paths that they have on a node, instead of showing them. Includes
    /// the credentials.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// File with the floor of the cluster, from the ConfigMap audit-operator-floor. Default: no granted
    /// risks, logs below /var/log/kubernetes.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// Version of kube-apiserver to render for.
    #[arg(long, value_name = "VERSION", default_value = "1.36")]
    kubernetes_version: KubernetesVersion,
    /// Form of the output.
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// A contract: other programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    revision: &'a str,
    flags: BTreeMap<String, String>,
    /// By path on the node, without files that hold a secret.
    files: BTreeMap<String, String>,
    /// Paths on the node of the files that hold a secret, with their size in bytes.
    secret_files: BTreeMap<String, usize>,
    mounts: Vec<MountReport>,
    /// Warnings, and acknowledged risks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<SetupFinding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MountReport {
    path: String,
    read_only: bool,
}

/// A manifest before and after.
struct Edited {
    new: String,
    /// Before.
    facts: static_pod::Facts,
    /// Unified; empty without a difference.
    diff: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let input = Input::read(&args.files)?;
    let floor = Floor::load(args.floor.as_deref())?;
    let mut rendered = render(&input.validate(Capabilities::of(args.kubernetes_version), &floor)?);
    print_findings(&rendered);
    let edited = args.manifest.as_deref().map(|path| edit(path, &rendered)).transpose()?;
    if let Some(finding) = edited.as_ref().and_then(|edited| proxied(&edited.facts, &rendered)) {
        print_finding(&finding);
        rendered.findings.push(finding);
    }
    match (&args.output_dir, args.output) {
        (Some(directory), _) => write_files(directory, &rendered, edited.as_ref())?,
        (None, Output::Json) => {
            let report = report(&rendered, edited.as_ref());
            super::print(&format!("{}\n", serde_json::to_string_pretty(&report).context("cannot write JSON")?))?;
        }
        (None, Output::Text) if args.diff => super::print(edited.as_ref().map_or("", |edited| &edited.diff))?,
        (None, Output::Text) => super::print(&text(&rendered, edited.as_ref()))?,
    }
    let differs = args.diff && edited.is_some_and(|edited| !edited.diff.is_empty());
    Ok(ExitCode::from(u8::from(differs)))
}

fn edit(path: &Path, rendered: &Rendered) -> anyhow::Result<Edited> {
    let old = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cannot = || format!("cannot edit {}", path.display());
    let facts = static_pod::read(&old).with_context(cannot)?;
    if let Err(refusal) = check_manifest(&facts, &rendered.revision) {
        bail!("{}: {} ({})", cannot(), refusal.message, refusal.reason);
    }
    let new = static_pod::edit(&old, &intent(&rendered.revision)).with_context(cannot)?.text;
    let diff = TextDiff::from_lines(&old, &new);
    let diff = diff.unified_diff().header(&format!("a/{MANIFEST}"), &format!("b/{MANIFEST}")).to_string();
    Ok(Edited { new, facts, diff })
}

/// Prints warnings and acknowledged risks on standard error.
pub(super) fn print_findings(rendered: &Rendered) {
    findings(rendered).for_each(|finding| print_finding(&finding));
}

fn print_finding(SetupFinding { id, severity, field, message }: &SetupFinding) {
    eprintln!("{severity}: {field}: {message} ({id})");
}

/// A proxy in the manifest that kube-apiserver would use for an address inside the cluster.
fn proxied(facts: &static_pod::Facts, rendered: &Rendered) -> Option<SetupFinding> {
    let webhook = rendered.revision.content.webhook.as_ref()?;
    let service = webhook.service.as_ref()?;
    let way = Way::of(facts, &webhook.url, webhook.proxy.as_ref());
    let Way::Proxy { named_by: NamedBy::Manifest(variable), proxy } = way else { return None };
    let index = rendered.sinks.iter().position(|sink| sink.kind == SinkKind::Webhook)?;
    let message = format!(
        "kube-apiserver would connect to {}, the address of the Service {service}, through the proxy {proxy} ({variable} in its \
         manifest). Add the address or the network of Services to NO_PROXY there",
        webhook.url.host
    );
    let field = format!("spec.sinks[{index}].webhook.service");
    Some(SetupFinding { id: "through-proxy".into(), severity: "warning".into(), field, message })
}

/// Findings of the policy end with their id, which is shown beside the message.
fn findings(rendered: &Rendered) -> impl Iterator<Item = SetupFinding> {
    let of_policy = rendered.policy.findings.iter().map(|finding| {
        let message = finding.message.trim_end_matches(&format!(" ({})", finding.id)).to_string();
        SetupFinding { message, ..finding.clone() }
    });
    of_policy.chain(rendered.findings.iter().cloned())
}

/// Path on the node and content of every file, and whether it holds a secret.
fn files(rendered: &Rendered) -> impl Iterator<Item = (String, Vec<u8>, bool)> {
    let directory = rendered.revision.directory();
    let is_kubeconfig_secret = rendered.revision.content.is_kubeconfig_secret();
    let revision = rendered.revision.files().into_iter().map(move |(name, content)| {
        let is_secret = name == KUBECONFIG_FILE && is_kubeconfig_secret;
        (format!("{directory}/{name}"), content.into_bytes(), is_secret)
    });
    let credentials = rendered.credentials.iter();
    revision.chain(credentials.map(|(path, content)| (path.on_node(), content.clone(), !path.is_public())))
}

fn report<'a>(rendered: &'a Rendered, edited: Option<&'a Edited>) -> Report<'a> {
    let mut shown = BTreeMap::new();
    let mut secret_files = BTreeMap::new();
    for (path, content, is_secret) in files(rendered) {
        match String::from_utf8(content) {
            Ok(text) if !is_secret => _ = shown.insert(path, text),
            Ok(text) => _ = secret_files.insert(path, text.len()),
            Err(error) => _ = secret_files.insert(path, error.as_bytes().len()),
        }
    }
    let mounts = intent(&rendered.revision).mounts;
    Report {
        revision: rendered.revision.id.as_str(),
        flags: rendered.revision.flags(),
        files: shown,
        secret_files,
        mounts: mounts.into_iter().map(|m| MountReport { path: m.path, read_only: m.read_only }).collect(),
        findings: findings(rendered).collect(),
        manifest: edited.map(|edited| edited.new.as_str()),
        diff: edited.map(|edited| edited.diff.as_str()),
    }
}

fn text(rendered: &Rendered, edited: Option<&Edited>) -> String {
    let report = report(rendered, edited);
    let mut out = format!("==> revision {}\n", report.revision);
    for (name, value) in &report.flags {
        writeln!(out, "--{name}={value}").expect("a String takes everything");
    }
    for mount in &report.mounts {
        let how = if mount.read_only { "read-only" } else { "read-write" };
        writeln!(out, "mount {} {how}", mount.path).expect("a String takes everything");
    }
    for (path, content) in &report.files {
        write!(out, "\n==> {path}\n{content}").expect("a String takes everything");
    }
    for (path, bytes) in &report.secret_files {
        write!(out, "\n==> {path}\n({bytes} bytes, secret: not shown; --output-dir writes it)\n")
            .expect("a String takes everything");
    }
    if let Some(manifest) = report.manifest {
        write!(out, "\n==> /{MANIFEST}\n{manifest}").expect("a String takes everything");
    }
    out
}

fn write_files(directory: &Path, rendered: &Rendered, edited: Option<&Edited>) -> anyhow::Result<()> {
    for (path, content, _) in files(rendered) {
        write_file(&below(directory, &path), &content)?;
    }
    if let Some(edited) = edited {
        write_file(&below(directory, MANIFEST), edited.new.as_bytes())?;
    }
    Ok(())
}

/// Readable by its owner alone, as on a node.
fn write_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let parent = path.parent().expect("every file is below the directory");
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write {}", path.display()))
}
