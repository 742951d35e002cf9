//! Why a pass of the agent failed: a refusal, which the status reports, or an error, after which the pass is repeated.

use crate::api::Reason;
use crate::client::is_outage;
use crate::error;
use crate::floor;
use crate::node::{STATE_DIR, files, guard, observe, state};
use crate::plan::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Settle(#[from] guard::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("cannot read {object}")]
    Fetch {
        object: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot write the status of NodeAudit {node}")]
    Report {
        node: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot create a client for the Kubernetes API")]
    Client(#[source] kube::Error),
    #[error(
        "{STATE_DIR} was deleted while the agent was running; exiting so that the kubelet restarts the agent with a new directory"
    )]
    StateRemoved,
    #[error(
        "{0} was deleted while the agent was running; exiting so that the kubelet restarts the agent with a new directory"
    )]
    LogDirectoryRemoved(String),
    #[error(transparent)]
    Floor(#[from] floor::Error),
    #[error(transparent)]
    Serve(#[from] crate::telemetry::ServeError),
}

impl Error {
    /// Label of the failure in metrics.
    pub(in crate::node) fn reason(&self) -> &'static str {
        match self {
            Error::State(error) => error.reason().as_str(),
            Error::File(error) => error.reason().as_str(),
            Error::Settle(error) => error.reason().as_str(),
            Error::Fetch { source, .. } | Error::Report { source, .. } if is_outage(source) => "Outage",
            Error::Fetch { .. } => "FetchFailed",
            Error::Report { .. } => "ReportFailed",
            // They end the program.
            Error::Client(_)
            | Error::Floor(_)
            | Error::Root(_)
            | Error::Serve(_)
            | Error::StateRemoved
            | Error::LogDirectoryRemoved(_) => "NotStarted",
        }
    }
}

/// Why a pass has no plan.
pub(super) enum Failed {
    /// The node cannot be changed in its present state: the status says so.
    Refused(Refusal),
    /// Try again.
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

/// Without our state the agent cannot do anything until a person has looked.
impl From<state::Error> for Failed {
    fn from(error: state::Error) -> Self {
        refused(error.reason(), &error)
    }
}

impl From<files::Error> for Failed {
    fn from(error: files::Error) -> Self {
        refused(error.reason(), &error)
    }
}

impl From<observe::Error> for Failed {
    fn from(error: observe::Error) -> Self {
        refused(error.reason(), &error)
    }
}

impl From<guard::Error> for Failed {
    fn from(error: guard::Error) -> Self {
        refused(error.reason(), &error)
    }
}

fn refused(reason: Reason, source: &(dyn std::error::Error + 'static)) -> Failed {
    Refusal { reason, message: error::chain(source) }.into()
}
