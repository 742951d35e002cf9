//! `audit-operator policy explain`: how a policy decides about one request.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgGroup;
use serde::Serialize;

use super::{Output, lines_of, load_text, policy_minor, presets, read_policy, request};
use crate::api::{Level, Stage};
use crate::cli::excerpt::visible;
use crate::cli::input::Input;
use crate::cli::print;
use crate::floor::Floor;
use crate::validate::{Capabilities, KubernetesVersion};
use audit_policy::{
    Attributes, Decision, Evaluator, Explanation, Mismatch, Part, Places, Policy, User, attributes, explain, quoted,
    stages, write,
};

#[derive(clap::Args)]
#[command(group = ArgGroup::new("source").required(true))]
pub(super) struct Args {
    /// The policy file; - is standard input.
    #[arg(long, value_name = "FILE", group = "source")]
    policy: Option<PathBuf>,
    /// A policy that comes with the operator.
    #[arg(long, value_name = "NAME", group = "source")]
    preset: Option<String>,
    /// YAML with an AuditSetup and the ConfigMap that it may refer to. Explains the policy that the operator gives to
    /// kube-apiserver, and from which part each rule comes. Can be given several times.
    #[arg(short, long = "file", value_name = "FILE", group = "source")]
    files: Vec<PathBuf>,
    /// File with the floor of the cluster, whose rules come before those of the AuditSetup. Default: changes of
    /// AuditSetups are recorded.
    #[arg(long, value_name = "FILE", requires = "files")]
    floor: Option<PathBuf>,
    /// The user, as authenticated, before any impersonation. Groups that kube-apiserver adds are added here too. A
    /// request without credentials is from system:anonymous. Without this option, authentication has failed.
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// A group of the user, from its certificate or identity provider. Can be given several times.
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// Version of kube-apiserver that loads the policy: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// Form of the explanation.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
    /// HTTP method, in upper case: GET, POST, PUT, PATCH, DELETE.
    method: String,
    /// Path and query, such as /api/v1/namespaces/default/secrets?watch=true.
    url: String,
}

/// A policy, its text and the names of its rules.
struct Source {
    /// Name of the file, or a name in its place.
    name: String,
    lines: Vec<String>,
    places: Places,
    policy: Policy,
    /// The parts of a Setup's policy.
    parts: Vec<Part>,
}

/// A contract: other programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    audited: bool,
    /// Null if authentication failed.
    user: Option<UserReport<'a>>,
    attributes: request::Record<'a>,
    level: Level,
    omit_stages: &'a [Stage],
    /// Stages of this request that have an event.
    recorded_stages: Vec<Stage>,
    omit_managed_fields: bool,
    /// Null if no rule matches.
    rule: Option<RuleReport<'a>>,
    passed_over: Vec<PassedOver<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserReport<'a> {
    name: &'a str,
    groups: Vec<&'a str>,
    /// Groups that kube-apiserver has added.
    added_groups: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleReport<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartReport<'a>>,
    line: u32,
    last_line: u32,
}

#[derive(Serialize)]
struct PartReport<'a> {
    name: &'a str,
    index: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PassedOver<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartReport<'a>>,
    level: Level,
    field: &'a str,
    wanted: &'a [String],
    found: &'a str,
    line: u32,
    column: u32,
}

/// A request that kube-apiserver answers before auditing.
#[derive(Serialize)]
struct NotAudited {
    audited: bool,
    error: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = read(args)?;
    let found = match attributes(&args.method, &args.url) {
        Ok(found) => found,
        Err(why) => {
            let refusal = NotAudited { audited: false, error: why.to_string() };
            print(&match args.output {
                Output::Json => format!("{}\n", serde_json::to_string(&refusal)?),
                Output::Text => format!("Never audited, under any policy: {}.\n", refusal.error),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let given: Vec<&str> = args.groups.iter().map(String::as_str).collect();
    let user = args.user.as_ref().map(|name| User::authenticated(name, &given));
    let asked = Attributes { user, ..found };
    let explanation = explain(&source.policy.rules, &asked);
    let evaluator = Evaluator::new(&source.policy);
    let report = report(args, &source, &asked, &explanation, &evaluator.decide(&asked));
    print(&match args.output {
        Output::Json => format!("{}\n", serde_json::to_string(&report)?),
        Output::Text => text(&source, &report)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn read(args: &Args) -> anyhow::Result<Source> {
    let minor = args.kubernetes_version;
    let (name, text, parts) = if let Some(path) = &args.policy {
        (path.display().to_string(), read_policy(path)?, Vec::new())
    } else if let Some(name) = &args.preset {
        let preset = presets::named(name)?;
        (format!("{}.yaml", preset.name), preset.text.into(), Vec::new())
    } else {
        let valid = Input::read(&args.files)?
            .validate_policy(Capabilities::of(KubernetesVersion::new(minor)), &Floor::load(args.floor.as_deref())?)?;
        let text = write(&valid.parts, &valid.omit_stages, valid.omit_managed_fields);
        ("policy.yaml".into(), text.into_bytes(), valid.parts)
    };
    let (policy, places) = load_text(&name, &text, minor)?;
    let lines = lines_of(&text);
    Ok(Source { name, lines, places, policy, parts })
}

impl Source {
    fn part(&self, rule: usize) -> Option<PartReport<'_>> {
        Part::of_rule(&self.parts, rule).map(|(part, index)| PartReport { name: &part.title, index })
    }

    /// The lines of a rule, without the comments before the next one.
    fn lines_of(&self, rule: usize) -> RangeInclusive<u32> {
        let first = self.places.of(&format!("rules[{rule}]")).line;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let has_content = |line: &&String| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let own = self.lines.get(first as usize - 1).map_or(0, |line| indent(line));
        let rest = self.lines.iter().skip(first as usize);
        // A rule ends before the next content that is not indented deeper than its dash.
        let is_of_rule = |(_, line): &(usize, &String)| !has_content(line) || indent(line) > own;
        let last = rest.enumerate().take_while(is_of_rule).filter(|(_, line)| has_content(line)).last();
        first..=first + last.map_or(0, |(i, _)| i as u32 + 1)
    }
}

fn report<'a>(
    args: &'a Args,
    source: &'a Source,
    asked: &'a Attributes,
    explanation: &'a Explanation,
    decision: &Decision<'a>,
) -> Report<'a> {
    let user = asked.user.as_ref().map(|user| {
        let groups: Vec<_> = user.groups.iter().map(|group| &**group).collect();
        let is_added = |group: &&&str| !args.groups.iter().any(|given| given == **group);
        UserReport { name: &user.name, added_groups: groups.iter().filter(is_added).copied().collect(), groups }
    });
    let passed_over = explanation.passed_over.iter().enumerate().map(|(index, mismatch)| {
        let Mismatch { field, wanted, found } = mismatch;
        let place = source.places.of(&format!("rules[{index}].{field}"));
        PassedOver {
            index,
            part: source.part(index),
            level: source.policy.rules[index].level,
            field,
            wanted,
            found,
            line: place.line,
            column: place.column,
        }
    });
    let is_recorded = |stage: &Stage| decision.level > Level::None && !decision.omit_stages.contains(stage);
    Report {
        audited: true,
        user,
        attributes: request::record(asked),
        level: decision.level,
        omit_stages: decision.omit_stages,
        recorded_stages: stages(asked).iter().copied().filter(is_recorded).collect(),
        omit_managed_fields: decision.omit_managed_fields,
        rule: explanation.rule.map(|index| {
            let lines = source.lines_of(index);
            RuleReport { index, part: source.part(index), line: *lines.start(), last_line: *lines.end() }
        }),
        passed_over: passed_over.collect(),
    }
}

fn text(source: &Source, report: &Report) -> anyhow::Result<String> {
    let mut out = String::new();
    writeln!(out, "user        {}", who(report))?;
    let mut request = Vec::new();
    request::text(&report.attributes, &mut request)?;
    writeln!(out, "request     {}\n", visible(&String::from_utf8_lossy(&request)))?;
    let named = |index: usize, part: Option<&PartReport>| match part {
        Some(PartReport { name, index }) => format!("{name}, rule {index}"),
        None => format!("rules[{index}]"),
    };
    for one in &report.passed_over {
        let PassedOver { index, part, level, field, wanted, found, line, .. } = one;
        let rule = format!("{} ({level:?})", named(*index, part.as_ref()));
        let place = format!("{}:{line}", source.name);
        writeln!(out, "{} no: {rule}: {field}: {}; the request has {}", visible(&place), few(wanted), visible(found))?;
    }
    let stages = |stages: &[Stage]| match stages {
        [] => "none".to_string(),
        stages => stages.iter().map(|stage| format!("{stage:?}")).collect::<Vec<_>>().join(", "),
    };
    match &report.rule {
        Some(RuleReport { index, part, line, last_line }) => {
            writeln!(out, "{}:{line} yes: {}\n", visible(&source.name), named(*index, part.as_ref()))?;
            let width = last_line.to_string().len();
            let lines = source.lines.iter().enumerate().skip(*line as usize - 1).take((last_line - line) as usize + 1);
            for (i, text) in lines {
                let text: String = text.chars().take(MAX_COLUMNS).collect();
                writeln!(out, "{:width$} | {}", i + 1, visible(&text))?;
            }
            writeln!(out)?;
        }
        None => writeln!(out, "No rule matches: the request is not recorded.\n")?,
    }
    writeln!(out, "level       {:?}: {}", report.level, meaning(report.level))?;
    writeln!(out, "omitted     {}", stages(report.omit_stages))?;
    let recorded = &report.recorded_stages;
    let why = match (recorded.is_empty(), report.level, &report.user) {
        (true, Level::None, _) => "",
        (true, _, None) => ": failed authentication has an event at ResponseStarted only, and that stage is omitted",
        (true, _, Some(_)) => ": every stage of this request is omitted",
        (false, _, None) => ": failed authentication has an event at this stage only",
        (false, ..) => "",
    };
    writeln!(out, "recorded    {}{why}", stages(recorded))?;
    if report.level >= Level::Request {
        let fields = if report.omit_managed_fields { "left out of the bodies" } else { "in the bodies" };
        writeln!(out, "managed     fields are {fields}")?;
    }
    Ok(out)
}

/// Longer lines are cut.
const MAX_COLUMNS: usize = 200;

fn who(report: &Report) -> String {
    let Some(UserReport { name, groups, added_groups }) = &report.user else {
        return "none: authentication failed. For a request without credentials, give --as system:anonymous".into();
    };
    let mut out = format!("{}, groups {}", quoted(name), few(groups));
    if !added_groups.is_empty() {
        out += &format!(" (added by kube-apiserver: {})", added_groups.join(", "));
    }
    if name.starts_with("system:node:") && !groups.contains(&"system:nodes") {
        out += "\n            The certificate of a kubelet also has the group system:nodes: --as-group system:nodes";
    }
    out
}

fn meaning(level: Level) -> &'static str {
    match level {
        Level::None => "nothing is recorded",
        Level::Metadata => "who, what, when and the outcome, without bodies",
        Level::Request => "also the body of the request, if it has one",
        Level::RequestResponse => "also the bodies of the request and the response, if there are any",
    }
}

/// The first few of many.
fn few(values: &[impl AsRef<str>]) -> String {
    const FEW: usize = 4;
    let shown: Vec<_> = values.iter().take(FEW).map(|value| quoted(value.as_ref())).collect();
    let more = match values.len().saturating_sub(FEW) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}
