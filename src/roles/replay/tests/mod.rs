//! The role without brokers that carry records: an intake, a committer and a view of the log that follow a script drawn from a
//! seed, an archive that fails now and then, and clocks that the script moves. Whatever happens, each request is restored once and
//! those of one saga in their order; the same seed gives the same trace.

mod world;

use crate::saga::request::ReplayStatus;
use world::{Draw, REQUESTS, SAGAS, World};

/// More steps than any script needs until nothing is left to do.
const MAX_STEPS: usize = 5_000;
/// Steps with faults, before the script lets everything succeed.
const FAULTY_STEPS: usize = 250;

/// Runs the script of this seed to its end.
async fn run(seed: u64) -> World {
    let mut draw = Draw(seed);
    let mut world = World::new(&mut draw).await;
    for step in 0..MAX_STEPS {
        let is_faulty = step < FAULTY_STEPS;
        world.pass_time(draw.below(200));
        world.archive_is_away(is_faulty && draw.below(4) == 0);
        match draw.below(12) {
            0..=3 => world.deliver(draw.below(6) + 1),
            4..=7 => {
                let fate = if is_faulty { draw.below(6) } else { 5 };
                world.batch(fate).await;
            }
            8 | 9 => world.show_log(draw.below(4)),
            10 if is_faulty && draw.below(4) == 0 => world.restart(),
            _ => world.obey_queue(),
        }
        if !is_faulty && world.is_done() {
            return world;
        }
    }
    panic!("seed {seed} does not end:\n{}", world.trace.join("\n"));
}

#[tokio::test]
async fn each_request_is_restored_once_whatever_fails() {
    let mut met = String::new();
    for seed in 1..=8 {
        let world = run(seed).await;
        met.push_str(&world.trace.join("\n"));
        let trace = || format!("seed {seed}:\n{}", world.trace.join("\n"));
        assert_eq!(world.restored.len(), REQUESTS, "{}", trace());
        assert!(world.restored.values().all(|places| places.len() == 1), "{:?}\n{}", world.restored, trace());
        let published = world.statuses().filter(|status| *status == ReplayStatus::Published).count();
        assert_eq!(published, REQUESTS, "{}", trace());
        // Those that may go at once keep their order.
        for saga in 0..SAGAS {
            let places: Vec<usize> = world.requests_of(saga).map(|id| world.restored[id][0]).collect();
            assert!(places.is_sorted(), "saga {saga}: {places:?}\n{}", trace());
        }
    }
    for what in ["aborted", "unknown", "not decided", "accepted", "Rewind", "restart"] {
        assert!(met.contains(what), "no script meets: {what}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_trace() {
    let (one, other) = (run(7).await.trace, run(7).await.trace);
    assert_eq!(one, other);
    assert_ne!(one, run(8).await.trace, "another seed another one");
}
