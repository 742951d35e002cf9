//! Random changes with random faults at random moments. A seed gives the same sequence again.

use std::time::Duration;

use testing::random::Random;

use super::act::Act;
use super::matrix::{Change, Outcome, Row};
use super::moment::Moment;
use super::node::Program;
use super::run::Runner;

fn up_to(random: &mut Random, seconds: u64) -> Duration {
    Duration::from_millis(random.below(seconds as usize * 1000) as u64)
}

/// Ends with the first run that does not end well.
pub fn torture(runs: u64, seed: u64) {
    let mut runner = Runner::connect();
    for run in 0..runs {
        let mut random = Random::new(seed.wrapping_add(run));
        let row = draw(&mut random, runner.nodes.len());
        let result = runner.run(usize::try_from(run).unwrap(), &row);
        assert!(
            result.failure.is_none(),
            "run {run} of seed {seed} (by itself: --runs 1 --seed {})",
            seed.wrapping_add(run)
        );
    }
    println!("{runs} runs from seed {seed}: nothing was lost");
}

fn draw(random: &mut Random, nodes: usize) -> Row {
    let change = random.pick(&[Change::Good, Change::Good, Change::BadAuthority, Change::BadLog]);
    let moment = match random.below(4) {
        0 => Moment::After(up_to(random, 40)),
        _ if change == Change::Good => random.pick(&[
            Moment::Staging,
            Moment::Staged,
            Moment::GuardRuns,
            Moment::Begun,
            Moment::Replaced,
            Moment::OldGone,
            Moment::NewRuns,
            Moment::Finished,
        ]),
        _ => random.pick(&[
            Moment::Staged,
            Moment::GuardRuns,
            Moment::Replaced,
            Moment::OldGone,
            Moment::RollingBack,
            Moment::PutBack,
        ]),
    };
    let act = match random.below(10) {
        0..=2 => Act::PowerCut(up_to(random, 20)),
        3 => Act::PowerCuts(2),
        4 | 5 => Act::KillFor(random.pick(&[Program::Guard, Program::Agent]), up_to(random, 15)),
        6 => Act::KillFor(random.pick(&[Program::Kubelet, Program::Containerd]), up_to(random, 2)),
        7 => Act::KillFor(random.pick(&[Program::ApiServer, Program::Etcd]), Duration::from_millis(50)),
        8 => Act::Freeze(
            random.pick(&[Program::Guard, Program::Kubelet, Program::Etcd, Program::ApiServer]),
            up_to(random, 30),
        ),
        _ => Act::ImmutableManifests(up_to(random, 20)),
    };
    // A good change that is hit may be abandoned; a bad one must never stay.
    let outcome = if change == Change::Good { Outcome::Either } else { Outcome::Old };
    Row { fault: "random", change, is_swift: random.one_in(2), moment, act, outcome, nodes, is_chosen: false }
}
