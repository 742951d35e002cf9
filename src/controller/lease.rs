//! Leader election on a `coordination.k8s.io` Lease: of several controllers one works, and never two.
//!
//! [`claim`] decides, purely; [`Election`] carries it out with writes that hold the `resourceVersion` which was judged,
//! so of two candidates one gets a conflict. Clocks of different machines are never compared: a foreign Lease has
//! expired when it has not changed for its duration while *we* watched (as client-go does, kubernetes@v1.36.3
//! staging/src/k8s.io/client-go/tools/leaderelection/leaderelection.go#L116-L131 and L421-L441).
//!
//! *Assumptions.* Two processes never share an identity; it is the name of the pod.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Outage, is_conflict, is_not_found};
use crate::telemetry::Health;

/// Name of the Lease.
const NAME: &str = "audit-operator";
/// A candidate waits this long after the last change of the Lease before it takes it from its holder.
const DURATION: Duration = Duration::from_secs(15);
/// The holder stops working this long after its last renewal that succeeded. Less than [`DURATION`], counted from
/// before the request, so it has stopped before another controller can begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two tries, to take it or to renew it.
const RETRY: Duration = Duration::from_secs(2);
/// No request takes longer than this, so that a hanging one leaves room for another before the deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// The facts in a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty when it was released.
    pub(super) holder: String,
    pub(super) duration: Duration,
    pub(super) resource_version: String,
}

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: seconds.map_or(DURATION, Duration::from_secs),
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// The next step of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// There is no Lease.
    Create,
    /// It is free: released, expired, or already ours.
    Take,
    /// Another candidate holds it, for this long at least.
    Wait(Duration),
}

/// Whether a candidate may take the Lease. `seen_at` is when it first saw the record as it is now.
pub(super) fn claim(record: Option<&Record>, seen_at: Instant, now: Instant, identity: &str) -> Claim {
    let Some(record) = record else { return Claim::Create };
    // Ours: we were away, or a container of this pod was restarted. The write shows whether it still is.
    if record.holder.is_empty() || record.holder == identity {
        return Claim::Take;
    }
    match record.duration.checked_sub(now.duration_since(seen_at)) {
        None | Some(Duration::ZERO) => Claim::Take,
        Some(left) => Claim::Wait(left),
    }
}

/// How the Lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It could not be renewed in time: the API is away.
    Lapsed,
    /// Another controller wrote it.
    Taken,
}

/// Takes part in the election for one identity.
pub(super) struct Election {
    api: Api<Lease>,
    identity: String,
    /// The record that was last seen to change, and when.
    seen: Option<(Record, Instant)>,
    /// The Lease as we last wrote it, and the moment before that write.
    held: Option<(Lease, Instant)>,
}

impl Election {
    pub(super) fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, seen: None, held: None }
    }

    /// Returns when the Lease is ours. A controller that waits for it is ready: it has nothing else to do, and a
    /// rolling update ends the old controller only when the new one is ready.
    pub(super) async fn win(&mut self, outage: &Outage, health: &Health) {
        loop {
            let tried = timeout(REQUEST_TIMEOUT, self.run_once()).await;
            health.passed();
            let wait = match tried {
                Ok(Ok(Claim::Wait(left))) => {
                    outage.responded();
                    health.ready();
                    // A release is seen by looking, so no longer than a retry.
                    left.min(RETRY)
                }
                Ok(Ok(Claim::Create | Claim::Take)) => {
                    outage.responded();
                    return;
                }
                Ok(Err(error)) if is_conflict(&error) => RETRY,
                Ok(Err(error)) => {
                    outage.failed(&error);
                    RETRY
                }
                Err(_) => {
                    outage.timed_out();
                    RETRY
                }
            };
            sleep(wait).await;
        }
    }

    /// Keeps the Lease that was won; returns when it is lost. The work under it must stop at once then: await this
    /// beside the work, and poll it first.
    pub(super) async fn hold(&mut self, outage: &Outage) -> Lost {
        let lost = self.hold_on(outage).await;
        self.held = None;
        lost
    }

    async fn hold_on(&mut self, outage: &Outage) -> Lost {
        while let Some((lease, renewed_at)) = self.held.clone() {
            let deadline = renewed_at + RENEW_DEADLINE;
            let now = Instant::now();
            if now >= deadline {
                return Lost::Lapsed;
            }
            sleep(RETRY.min(deadline - now)).await;
            let started = Instant::now();
            let Some(left) = deadline.checked_duration_since(started).filter(|left| !left.is_zero()) else {
                return Lost::Lapsed;
            };
            let renewed = self.taken(lease);
            let params = PostParams::default();
            match timeout(REQUEST_TIMEOUT.min(left), self.api.replace(NAME, &params, &renewed)).await {
                Ok(Ok(lease)) => {
                    outage.responded();
                    self.keep(lease, started);
                }
                // Another controller wrote it, or it was deleted: either way it is not ours any more.
                Ok(Err(error)) if is_conflict(&error) || is_not_found(&error) => return Lost::Taken,
                Ok(Err(error)) => outage.failed(&error),
                Err(_) => outage.timed_out(),
            }
        }
        Lost::Lapsed
    }

    /// Lets the next candidate in without a wait. Call only when the work has stopped.
    pub(super) async fn release(&mut self) {
        let Some((mut lease, _)) = self.held.take() else { return };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        let params = PostParams::default();
        match timeout(REQUEST_TIMEOUT, self.api.replace(NAME, &params, &lease)).await {
            Ok(Ok(_)) => tracing::info!("released the leadership"),
            Ok(Err(error)) => tracing::debug!(%error, "cannot release the leadership; it will expire"),
            Err(_) => tracing::debug!("cannot release the leadership; it will expire"),
        }
    }

    async fn run_once(&mut self) -> Result<Claim, kube::Error> {
        let found = self.api.get_opt(NAME).await?;
        let record = found.as_ref().map(Record::of);
        let now = Instant::now();
        let seen_at = match (&self.seen, &record) {
            (Some((seen, at)), Some(record)) if seen == record => *at,
            _ => now,
        };
        self.seen = record.clone().map(|record| (record, seen_at));

        let claim = claim(record.as_ref(), seen_at, now, &self.identity);
        let started = Instant::now();
        let written = match (claim, found) {
            (Claim::Wait(_), _) => return Ok(claim),
            (_, Some(lease)) => self.api.replace(NAME, &PostParams::default(), &self.taken(lease)).await?,
            (_, None) => self.api.create(&PostParams::default(), &self.taken(Lease::default())).await?,
        };
        self.keep(written, started);
        Ok(claim)
    }

    fn keep(&mut self, lease: Lease, started: Instant) {
        self.seen = Some((Record::of(&lease), started));
        self.held = Some((lease, started));
    }

    /// `lease` with us as its holder.
    fn taken(&self, lease: Lease) -> Lease {
        let now = MicroTime(super::now());
        let old = lease.spec.unwrap_or_default();
        let is_ours = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = old.lease_transitions.unwrap_or(0);
        Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..lease.metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(DURATION.as_secs() as i32),
                acquire_time: if is_ours { old.acquire_time } else { Some(now.clone()) },
                lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Record {
        Record { holder: holder.into(), duration: Duration::from_secs(15), resource_version: "7".into() }
    }

    #[test]
    fn a_lease_is_taken_only_where_it_is_free() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let cases = [
            ("none yet", None, 0, Claim::Create),
            ("released", Some(held_by("")), 0, Claim::Take),
            ("our own, from before a restart", Some(held_by("me")), 0, Claim::Take),
            ("just seen", Some(held_by("other")), 0, Claim::Wait(Duration::from_secs(15))),
            ("renewed in time", Some(held_by("other")), 14, Claim::Wait(Duration::from_secs(1))),
            ("not renewed", Some(held_by("other")), 15, Claim::Take),
            ("long dead", Some(held_by("other")), 1000, Claim::Take),
            (
                "its own duration counts",
                Some(Record { duration: Duration::from_secs(60), ..held_by("other") }),
                20,
                Claim::Wait(Duration::from_secs(40)),
            ),
        ];
        for (name, record, seconds, want) in cases {
            assert_eq!(claim(record.as_ref(), start, after(seconds), "me"), want, "{name}");
        }
    }

    #[test]
    fn the_holder_stops_before_a_candidate_begins() {
        // The slowest holder: its last renewal is seen at the very moment it was sent, and it notices at its deadline.
        let sent = Instant::now();
        let stopped = sent + RENEW_DEADLINE;
        assert!(matches!(claim(Some(&held_by("me")), sent, stopped, "other"), Claim::Wait(left) if left >= RETRY));
        assert!(REQUEST_TIMEOUT + RETRY < RENEW_DEADLINE, "a hanging request leaves room for another");
    }

    #[test]
    fn a_lease_without_a_valid_duration_has_our_own() {
        let spec = LeaseSpec { lease_duration_seconds: Some(-1), ..LeaseSpec::default() };
        let record = Record::of(&Lease { spec: Some(spec), ..Lease::default() });
        assert_eq!(record, Record { holder: String::new(), duration: DURATION, resource_version: String::new() });
    }
}
