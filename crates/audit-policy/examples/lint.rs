//! Prints the findings about a policy file, and its decisions about a few requests.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use audit_policy::{Attributes, Evaluator, Mode, Terms, User, attributes, lint};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: lint POLICY")?;
    let terms = Terms { minor: 36, secrets_accepted: false, mode: Mode::Batch, floor: &[] };
    let linted = lint(&std::fs::read(&path)?, &terms);
    for finding in &linted.findings {
        println!("{path}:{}:{}: {}: {}", finding.place.line, finding.place.column, finding.id, finding.message);
    }
    let Some(policy) = linted.policy else { return Err("kube-apiserver would not start with this policy".into()) };
    let evaluator = Evaluator::new(&policy);
    for (method, url) in [
        ("GET", "/api/v1/namespaces/default/secrets/db"),
        ("POST", "/apis/apps/v1/namespaces/default/deployments"),
        ("GET", "/readyz"),
    ] {
        let request = attributes(method, url).map_err(|_| "kube-apiserver does not audit this request")?;
        let user = Some(User::authenticated("alice", &[]));
        println!("{method} {url}: {:?}", evaluator.decide(&Attributes { user, ..request }).level);
    }
    Ok(())
}
