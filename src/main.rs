//! One binary, several programs: see `audit-operator --help`.

use std::process::ExitCode;

use audit_operator::cli;

fn main() -> ExitCode {
    // Both TLS stacks of a process share one provider; ring is the only one compiled in, and the choice is made before
    // any client exists.
    rustls::crypto::ring::default_provider().install_default().expect("nothing installed a provider before main");
    cli::main()
}
