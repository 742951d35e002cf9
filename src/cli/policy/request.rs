//! `audit-operator policy request`: the attributes of requests.

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::{Output, lines};
use audit_policy::{Attributes, attributes};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Form of the attributes, one line per request, in their order.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Request<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
}

/// A contract: other programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<'a> {
    is_resource_request: bool,
    path: &'a str,
    verb: &'a str,
    api_group: &'a str,
    api_version: &'a str,
    namespace: &'a str,
    resource: &'a str,
    subresource: &'a str,
    name: &'a str,
}

/// A request that kube-apiserver answers before auditing.
#[derive(Serialize)]
struct NotAudited {
    error: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    lines::answer("standard input", std::io::stdin().lock(), |line, out| {
        let Request { method, url } = lines::record(line)?;
        let found = attributes(&method.unwrap_or_default(), &url.unwrap_or_default());
        match (&found, args.output) {
            (Ok(found), Output::Json) => serde_json::to_writer(&mut *out, &record(found))?,
            (Ok(found), Output::Text) => text(&record(found), out)?,
            (Err(why), Output::Json) => serde_json::to_writer(&mut *out, &NotAudited { error: why.to_string() })?,
            (Err(why), Output::Text) => write!(out, "not audited: {why}")?,
        }
        writeln!(out)?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn record<'a>(found: &'a Attributes<'_>) -> Record<'a> {
    Record {
        is_resource_request: found.is_resource_request,
        path: &found.path,
        verb: &found.verb,
        api_group: &found.api_group,
        api_version: &found.api_version,
        namespace: &found.namespace,
        resource: &found.resource,
        subresource: &found.subresource,
        name: &found.name,
    }
}

pub(super) fn text(found: &Record, out: &mut dyn Write) -> std::io::Result<()> {
    if !found.is_resource_request {
        return write!(out, "{} {} (no resource)", found.verb, found.path);
    }
    // The verb of an unknown method is empty.
    let verb = if found.verb.is_empty() { "\"\"" } else { found.verb };
    write!(out, "{verb} {}", found.resource)?;
    for (before, value) in [
        ("/", found.subresource),
        (" name=", found.name),
        (" namespace=", found.namespace),
        (" group=", found.api_group),
    ] {
        if !value.is_empty() {
            write!(out, "{before}{value}")?;
        }
    }
    Ok(())
}
