use super::super::saga_cache::CacheLimits;
use super::*;
use crate::hot::DurableSaga;
use crate::saga::event::{Kind, StepEvent};
use crate::saga::position::ChainId;
use crate::saga::testing::{event, settings};
use crate::saga::time::Micros;

/// Folds an event alone; has its member the whole saga, and must its key be kept from expiring?
fn fold(partition: &mut Partition, number: i64) -> (bool, bool) {
    let event = StepEvent { event_id: format!("event-{number}"), ..event(Kind::ContextUpdated) };
    let record = DecodedEvent { offset: Offset(number), recorded: Micros(number), size: 100, event };
    let applied = partition.fold_events(vec![record], &settings(), Instant::now());
    let [write] = &applied.hot.sagas[..] else { panic!("one saga is written") };
    let header = frame::peek_member(&write.members[0].bytes).expect("a member");
    (header.has_saga, write.persist)
}

fn partition() -> Partition {
    let chain = ChainId { topic: "events".into(), incarnation: 0, partition: 0 };
    Partition::new(chain, Content::StepEvents, Offset(0), CacheLimits { sagas: 10, bytes: 1 << 20 }, vec![None])
}

#[test]
fn the_whole_saga_goes_with_every_sixteenth_entry_after_the_first() {
    let mut partition = partition();
    let whole: Vec<i64> = (0..40).filter(|number| fold(&mut partition, *number).0).collect();
    assert_eq!(whole, [16, 32]);
}

#[test]
fn another_event_under_a_sequence_that_is_taken_is_told_with_the_entry_that_has_it() {
    let mut partition = partition();
    let record = |offset: i64, id: &str, sequence: u64| {
        let event = StepEvent { event_id: id.into(), sequence: Some(sequence), ..event(Kind::ContextUpdated) };
        DecodedEvent { offset: Offset(offset), recorded: Micros(offset), size: 100, event }
    };
    let records = vec![record(7, "a", 1), record(8, "b", 2), record(9, "b", 2), record(10, "c", 1)];
    let applied = partition.fold_events(records, &settings(), Instant::now());
    let (saga, by) = (SagaId::from("order-1"), EntrySequence(1));
    assert_eq!(
        (applied.duplicates, applied.sequence_conflicts),
        (2, vec![SequenceConflict { offset: Offset(10), saga: saga.clone(), taken_by: by }])
    );
    assert_eq!(partition.position_of(&saga, by).map(|position| position.offset), Some(Offset(7)));
}

#[test]
fn no_member_is_larger_than_the_store_takes() {
    let event = |number: i64, bytes: usize| {
        // Not to be compressed.
        let words: String =
            (0..bytes / 8).map(|n| format!("{:08x}", (n as u32 + number as u32 * 100_000).wrapping_mul(2_654_435_761))).collect();
        let context = ContextChange::Patch(Json::from_valid(format!("{{\"{number}\":\"{words}\"}}")));
        StepEvent { event_id: number.to_string(), context, ..event(Kind::ContextUpdated) }
    };
    let mut partition = partition();
    partition.max_member = 10_000;
    let mut members = Vec::new();
    for number in 0..40 {
        let bytes = if number == 20 { 40_000 } else { 2_000 };
        let record = DecodedEvent { offset: Offset(number), recorded: Micros(number), size: bytes, event: event(number, bytes) };
        let mut applied = partition.fold_events(vec![record], &settings(), Instant::now());
        members.extend(applied.hot.sagas.remove(0).members);
    }
    assert!(members.iter().all(|member| member.bytes.len() <= 10_000));
    let header = |number: usize| frame::peek_member(&members[number].bytes).expect("a member");
    assert!(!header(16).has_saga && !header(32).has_saga, "the whole saga is too large by then");
    let readable: Vec<bool> =
        members.iter().map(|member| frame::decode_member(&"order-1".into(), &member.bytes).is_ok()).collect();
    assert_eq!(readable.iter().filter(|readable| !**readable).count(), 1);
    assert!(!readable[20] && header(20).sequence == EntrySequence(21), "it is there, and cannot be read here");
}

#[test]
fn the_whole_saga_goes_along_where_hot_may_have_nothing_of_it() {
    let mut partition = partition();
    (0..3).for_each(|number| assert_eq!(fold(&mut partition, number), (false, false)));
    partition.cache.hot_lost_writes();
    assert_eq!(fold(&mut partition, 3), (true, false));
    assert_eq!(fold(&mut partition, 4), (false, false));
    // Durable: the key may expire from now on, or be evicted.
    let at_rest = DurableSaga { saga: "order-1".into(), sequence: EntrySequence(5) };
    assert_eq!(partition.cache.unpin_through(Offset(4)), [at_rest]);
    assert_eq!(fold(&mut partition, 5), (true, true));
    assert_eq!(fold(&mut partition, 6), (false, false));
}
