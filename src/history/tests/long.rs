//! Histories that are long or large: what an answer costs is bounded by what it tells.

use std::time::{Duration, Instant};

use super::world::{Act, World};
use super::{check_pages, check_state, run};
use crate::history::answer::PointInTime;
use crate::history::merge::{CandidateMarks, ReadDepth, RunEnd, hot_run};
use crate::hot::{Mark, Member};
use crate::saga::entry::Entry;
use crate::saga::event::{ErrorInfo, Kind, StepEvent};
use crate::saga::fold_settings::SnapshotPolicy;
use crate::saga::json::Json;
use crate::saga::position::{ChainId, EntrySequence, Offset, Position, SagaId};
use crate::saga::stored_entry::StoredEntry;
use crate::saga::testing::event;
use crate::saga::time::Micros;

fn told(number: usize, kind: Kind, error: Option<Box<ErrorInfo>>) -> StepEvent {
    StepEvent {
        event_id: format!("event-{number}"),
        saga_id: "saga-0".into(),
        step: Some(format!("step-{}", number % 10)),
        error,
        ..event(kind)
    }
}

#[test]
fn a_long_history_is_put_together_in_the_time_of_its_length() {
    let length = 100_000_u64;
    let chain = ChainId { topic: "t".into(), incarnation: 0, partition: 0 };
    let mark = Mark { from: Offset(0), to: Offset(i64::MAX), complete_through: Micros(0), settled: Offset(0) };
    let marks = CandidateMarks { candidates: std::slice::from_ref(&chain), marks: &[(chain.clone(), mark)] };
    let member = |number: u64| Member { effective_time: Micros(0), bytes: number.to_be_bytes().to_vec().into() };
    let members: Vec<Member> = (1..=length).rev().map(member).collect();
    let template = Entry {
        sequence: EntrySequence::FIRST,
        position: Position::new("t", 0, 0),
        effective_time: Micros(0),
        occurred_time: Micros(0),
        recorded_time: Micros(0),
        snapshot: false,
        anomalies: Vec::new(),
        event: event(Kind::ContextUpdated),
    };
    let decode = |bytes: &[u8]| {
        let number = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        let position = Position { offset: Offset(number as i64), ..template.position.clone() };
        Ok(StoredEntry { entry: Entry { sequence: EntrySequence(number), position, ..template.clone() }, saga: None })
    };
    let began = Instant::now();
    let run = hot_run(&members, ReadDepth::Start, &marks, |_| true, decode);
    assert_eq!((run.entries.len() as u64, run.ending), (length, RunEnd::Reached));
    // Each with all before: 5,000,000,000 comparisons.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_page_of_large_entries_ends_early_and_pages_hold_all() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::Manual).await;
        let saga = SagaId::from("saga-0");
        for number in 0..40 {
            let details = Json::from_valid(format!(r#""{}""#, "x".repeat(900_000)));
            let error = ErrorInfo { details: Some(details), ..ErrorInfo::default() };
            world.record(0, told(number, Kind::StepFailed, Some(Box::new(error))));
            if number % 15 == 14 {
                world.act(&Act::Consume { partition: 0, crash: false }).await;
                world.act(&Act::Flush { partition: 0 }).await;
            }
        }
        world.act(&Act::Consume { partition: 0, crash: false }).await;
        for wiped in [false, true] {
            let (mut after, mut sequences) = (None, Vec::new());
            loop {
                let page = world.history.page(&saga, None, None, after.as_deref(), 1_000).await.expect("a page");
                assert!((1..=12).contains(&page.rows.len()), "{} entries of 0.9 MB", page.rows.len());
                sequences.extend(page.rows.iter().map(|row| row.entry.sequence.0));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let last = if wiped { 30 } else { 40 };
            assert_eq!(sequences, (1..=last).collect::<Vec<u64>>());
            check_state(&world, &saga, PointInTime::Newest).await;
            world.act(&Act::Wipe { bucket: 0 }).await;
        }
    });
}

#[test]
fn pages_and_states_are_right_across_segments() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::Manual).await;
        for number in 0..120_u8 {
            world.act(&Act::Log { saga: 0, kind: number % 5, change: number, seconds: 1, late: 0, hole: false }).await;
            if number % 20 == 19 {
                world.act(&Act::Consume { partition: 0, crash: false }).await;
                if number < 100 {
                    world.act(&Act::Flush { partition: 0 }).await;
                }
            }
        }
        for _ in 0..2 {
            check_pages(&world, &"saga-0".into()).await;
            for sequence in [1, 19, 20, 21, 40, 41, 99, 100, 101, 120] {
                check_state(&world, &"saga-0".into(), PointInTime::Sequence(sequence)).await;
            }
            world.act(&Act::Wipe { bucket: 0 }).await;
        }
    });
}
