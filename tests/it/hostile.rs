//! `audit-operator render` on AuditSetups that try to get more than their author was given.
//!
//! The first line of each file below `tests/cases/hostile` names the outcome: `# want: refused`, `accepted`, or
//! `noted`, which is refused, or accepted with a note on standard error. A line `# floor: …` replaces the default
//! floor.

use std::fs;
use std::io::Write;
use std::process::Command;

use testing::golden::cases;
use testing::root;

const MANIFEST: &str = "tests/cases/manifest/kubeadm-1.36/in.yaml";

#[test]
fn every_hostile_setup_is_refused_or_does_no_harm() {
    let mut wrong = Vec::new();
    let files = cases("tests/cases/hostile");
    assert!(files.len() > 60, "{} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("# {name}: ")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_audit-operator"));
        command.args(["render", "--output", "json", "--manifest", MANIFEST, "-f"]).arg(&file).current_dir(root());
        let mut floor = tempfile::NamedTempFile::new().unwrap();
        if let Some(text) = header("floor") {
            floor.write_all(text.as_bytes()).unwrap();
            command.arg("--floor").arg(floor.path());
        }
        let output = command.output().unwrap();
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let is_accepted = output.status.code() == Some(0) && !out.is_empty();
        let is_refused = output.status.code() == Some(2) && out.is_empty() && !said.is_empty();
        let is_right = match header("want").unwrap_or_else(|| panic!("{} says no want", file.display())) {
            "refused" => is_refused,
            "accepted" => is_accepted,
            "noted" => is_refused || is_accepted && !said.is_empty(),
            other => panic!("{}: {other}", file.display()),
        };
        if !is_right {
            wrong.push(format!("{}: exit {:?}\n{said}", file.display(), output.status.code()));
        }
        if is_accepted {
            harmless(&out, &file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The manifest of an accepted Setup has the flags of auditing, and no other flag that it did not have before.
fn harmless(out: &str, file: &str) {
    let report: serde_json::Value = serde_json::from_str(out).unwrap();
    let manifest = report["manifest"].as_str().unwrap();
    let flags = |text: &str| -> Vec<String> {
        let pod: serde_json::Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let container = &pod["spec"]["containers"][0];
        let list = |name: &str| container[name].as_array().cloned().unwrap_or_default();
        let all = list("command").into_iter().chain(list("args")).map(|flag| flag.as_str().unwrap().to_string());
        all.filter(|flag| !flag.starts_with("--audit-") && !flag.starts_with("--shutdown-")).collect()
    };
    let before = fs::read_to_string(root().join(MANIFEST)).unwrap();
    assert_eq!(flags(manifest), flags(&before), "{file}");
}
