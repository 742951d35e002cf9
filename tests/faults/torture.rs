//! Random changes with random faults at random moments. A seed gives the same sequence again.

use std::time::Duration;

use super::act::Act;
use super::matrix::{Change, Outcome, Row};
use super::moment::Moment;
use super::node::Program;
use super::run::Runner;

/// SplitMix64: a seed, and numbers that look random (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn seconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most * 1000))
    }
}

/// Ends with the first run that does not end well.
pub fn torture(runs: u64, seed: u64) {
    let mut runner = Runner::connect();
    for run in 0..runs {
        let mut random = Random(seed.wrapping_add(run));
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
    let change = random.pick(&[Change::Good, Change::Good, Change::BadPolicy, Change::BadFlag]);
    let moment = match random.below(4) {
        0 => Moment::After(random.seconds(40)),
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
        0..=2 => Act::PowerCut(random.seconds(20)),
        3 => Act::PowerCuts(2),
        4 | 5 => Act::KillFor(random.pick(&[Program::Guard, Program::Agent]), random.seconds(15)),
        6 => Act::KillFor(random.pick(&[Program::Kubelet, Program::Containerd]), random.seconds(2)),
        7 => Act::KillFor(random.pick(&[Program::ApiServer, Program::Etcd]), Duration::from_millis(50)),
        8 => Act::Freeze(
            random.pick(&[Program::Guard, Program::Kubelet, Program::Etcd, Program::ApiServer]),
            random.seconds(30),
        ),
        _ => Act::ImmutableManifests(random.seconds(20)),
    };
    // A good change that is hit may be given up; a bad one must never stay.
    let outcome = if change == Change::Good { Outcome::Either } else { Outcome::Old };
    Row { fault: "random", change, is_swift: random.below(2) == 0, moment, act, outcome, nodes, is_chosen: false }
}
