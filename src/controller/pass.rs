//! One pass: fetch the cluster, judge all Setups, decide once over all nodes, apply, report.

use std::time::Duration;

use super::apply::{Applied, apply};
use super::fetch::fetch;
use super::judge::{Judged, judge, unclaimed};
use super::report::report;
use super::silence::Silence;
use super::stores::Stores;
use super::world::World;
use super::{Context, Error};
use crate::rollout::{Claim, Decision, Progress, decide};

/// When a decision was outdated, the watch shows why before long.
const OUTDATED: Duration = Duration::from_millis(500);

/// A claim with its decision.
pub(super) struct Decided<'a> {
    pub(super) judged: &'a Judged<'a>,
    pub(super) claim: &'a Claim<'a>,
    pub(super) decision: &'a Decision,
}

/// A pass over all Setups. One that fails does not hold up the others; the first error is returned. Returns when to
/// make the next pass even if nothing changes.
pub(super) async fn pass(
    context: &Context,
    stores: &mut Stores,
    silence: &mut Silence,
) -> Result<Option<Duration>, Error> {
    // Client: only to watch what was not watched before.
    let world = fetch(context, stores, silence).await?;
    let now = super::now();
    // Pure.
    let judged = judge(&world);
    let claims = claims(&world, &judged);
    let decisions = decide(&claims, &unclaimed(&world, &claims), now);
    // Client, where something differs.
    let mut basis = world.basis();
    let mut wake = None;
    let mut failed = None;
    let mut statuses = Vec::new();
    for ((judged, claim), decision) in judged.iter().zip(&claims).zip(&decisions) {
        let decided = Decided { judged, claim, decision };
        let written = async {
            let applied = apply(context, stores, &world, &mut basis, &decided).await?;
            let status = match applied {
                Applied::Done => report(context, stores, &world, &decided, now).await?,
                Applied::Outdated => {
                    let decision = &waiting(decision);
                    report(context, stores, &world, &Decided { decision, ..decided }, now).await?
                }
                Applied::Released => None,
            };
            Ok((applied, status))
        };
        match written.await {
            Ok((applied, status)) => {
                statuses.extend(status);
                wake = [wake, soon(applied, decision)].into_iter().flatten().min();
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    context.metrics.show(&statuses);
    failed.map_or(Ok(wake), Err)
}

fn claims<'a>(world: &'a World, judged: &'a [Judged<'a>]) -> Vec<Claim<'a>> {
    judged.iter().map(|judged| judged.claim(world)).collect()
}

/// The decision whose slot was not given.
fn waiting(decision: &Decision) -> Decision {
    let detail = "waiting for the latest state of the nodes".into();
    Decision { progress: Progress::Moving { detail }, ..decision.clone() }
}

fn soon(applied: Applied, decision: &Decision) -> Option<Duration> {
    match applied {
        Applied::Outdated => Some(OUTDATED),
        Applied::Done | Applied::Released => decision.wake.and_then(|wake| Duration::try_from(wake).ok()),
    }
}

#[cfg(test)]
mod tests;
