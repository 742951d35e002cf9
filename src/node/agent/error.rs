//! Why the agent failed, and whether that is a refusal, which its status reports, or something to try again.

use crate::client::is_outage;
use crate::error;
use crate::floor;
use crate::node::{STATE_DIR, files, observe, state};
use crate::plan::Refusal;
use crate::telemetry;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("cannot read {what}")]
    Fetch {
        what: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot write the status of NodeAudit {node}")]
    Report {
        node: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot make a client of the Kubernetes API")]
    Client(#[source] kube::Error),
    #[error("{STATE_DIR} was removed under this program; it ends, so that the kubelet starts it with a new one")]
    StateRemoved,
    #[error("{0} was removed under this program; it ends, so that the kubelet starts it with a new one")]
    LogDirectoryRemoved(String),
    #[error(transparent)]
    Floor(#[from] floor::Error),
    #[error(transparent)]
    Serve(#[from] telemetry::ServeError),
}

impl Error {
    /// Label of the failure in metrics.
    pub(in crate::node) fn reason(&self) -> &'static str {
        match self {
            Error::State(error) => error.reason().as_str(),
            Error::File(error) => error.reason().as_str(),
            Error::Fetch { source, .. } | Error::Report { source, .. } if is_outage(source) => "Outage",
            Error::Fetch { .. } => "FetchFailed",
            Error::Report { .. } => "ReportFailed",
            // They end the program before its first turn.
            Error::Client(_)
            | Error::Floor(_)
            | Error::Root(_)
            | Error::Serve(_)
            | Error::StateRemoved
            | Error::LogDirectoryRemoved(_) => "NotStarted",
        }
    }
}

/// Why a turn did not come to a plan.
pub(super) enum Failed {
    /// The node cannot be changed as it is: said in status.
    Refused(Refusal),
    /// To be tried again.
    Retry(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Retry(error)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Failed::Refused(refusal)
    }
}

/// Without our state nothing can be done here until a person has looked.
impl From<state::Error> for Failed {
    fn from(error: state::Error) -> Self {
        Failed::Refused(Refusal { reason: error.reason(), message: error::chain(&error).to_string() })
    }
}

impl From<files::Error> for Failed {
    fn from(error: files::Error) -> Self {
        state::Error::from(error).into()
    }
}

impl From<observe::Refusal> for Failed {
    fn from(refusal: observe::Refusal) -> Self {
        Failed::Refused(Refusal { reason: refusal.reason(), message: error::chain(&refusal).to_string() })
    }
}
