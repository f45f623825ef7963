use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::saga::event::{Kind, StepEvent};
use crate::saga::position::{Position, SagaId};
use crate::saga::time::Micros;
use crate::wire::testing;

fn entry(context: ContextChange) -> Entry {
    Entry {
        sequence: EntrySequence(7),
        position: Position::new("saga.events.v1", 3, 41),
        effective_time: Micros(1_768_039_200_000_001),
        occurred_time: Micros(1_768_039_200_000_000),
        recorded_time: Micros(1_768_039_200_005_000),
        snapshot: false,
        anomalies: vec![crate::saga::state::Anomaly::Late],
        event: StepEvent {
            event_id: "e-1".into(),
            saga_id: SagaId::from("order-1"),
            saga_name: "order".into(),
            kind: Kind::StepStarted,
            occurred_at: Some(Micros(1_768_039_200_000_000)),
            step: Some("pay".into()),
            step_index: Some(2),
            attempt: None,
            sequence: Some(9),
            context,
            result: None,
            error: None,
            saga_version: None,
            tenant: None,
            region: None,
            labels: None,
            lineage: None,
            restored: None,
        },
    }
}
fn full(text: &str) -> ContextChange {
    ContextChange::Full(Json::from_valid(text))
}
fn unsplice(before: &str, change: &ContextChange) -> ContextChange {
    match change {
        ContextChange::Splice { prefix, suffix, middle } => {
            full(&crate::saga::splice::unsplice(before, *prefix, *suffix, middle).unwrap())
        }
        other => other.clone(),
    }
}
fn columns(entry: &Entry) -> EntryColumns {
    let Entry { position, recorded_time, event, .. } = entry;
    let (saga_id, event_id) = (event.saga_id.clone(), event.event_id.clone());
    let (position, recorded_time, occurred_at) = (position.clone(), *recorded_time, event.occurred_at);
    EntryColumns { saga_id, event_id, position, occurred_at, recorded_time }
}
fn decoded(member: &[u8]) -> Result<StoredEntry> {
    decode_member(&SagaId::from("order-1"), member)
}
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_member_of_layout_2_is_still_written_and_read_so() {
    let golden = include_str!("golden.txt").trim();
    let member = encode_member(&entry(ContextChange::Patch(Json::from_valid("{\"a\":1.10}"))), 5, None, None);
    assert_eq!(hex(&member), golden);
    let back = decoded(&member).unwrap();
    assert_eq!(back.entry, entry(ContextChange::Patch(Json::from_valid("{\"a\":1.10}"))));
}

#[test]
fn the_header_sorts_by_entry_sequence_and_is_read_alone() {
    let member = encode_member(&entry(ContextChange::None), 5, None, None);
    let header = peek_member(&member).unwrap();
    assert_eq!(member[..8], 7_u64.to_be_bytes());
    assert_eq!(header, MemberHeader { sequence: EntrySequence(7), partition: 3, offset: Offset(41), has_saga: false, fold: 5 });
    assert!(peek_member(&member[..HEADER - 1]).is_err());
}

#[test]
fn an_entry_too_large_for_the_store_leaves_a_sign_that_it_is_there() {
    let member = absent_member(&entry(ContextChange::None), 5);
    assert_eq!(member.len(), HEADER);
    assert_eq!(peek_member(&member).unwrap().sequence, EntrySequence(7));
    assert!(matches!(decoded(&member), Err(Error::Corrupt(_))));
}

#[test]
fn a_context_that_changed_little_is_kept_as_a_splice() {
    let words: String = (0..400_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    let before = Json::from_valid(format!("{{\"é\":\"{words}\",\"n\":1}}"));
    let after = Json::from_valid(format!("{{\"è\":\"{words}\",\"n\":2}}"));
    let near = Json::from_valid(format!("{{\"é\":\"{words}\",\"n\":2}}"));
    let spliced = encode_member(&entry(ContextChange::Full(near.clone())), 5, Some(&before), None);
    assert!(spliced.len() < 200, "{}", spliced.len());
    for context in [after, near] {
        let member = encode_member(&entry(ContextChange::Full(context.clone())), 5, Some(&before), None);
        let change = decoded(&member).unwrap().entry.event.context;
        assert_eq!(unsplice(before.as_str(), &change), ContextChange::Full(context));
    }
}

#[test]
fn a_bomb_and_a_damaged_frame_are_corrupt() {
    let member = encode_member(&entry(full(&format!("{{\"a\":\"{}\"}}", "x".repeat(5_000)))), 5, None, None);
    assert_eq!(member[20], COMPRESSED);
    // A frame of one empty block that says it has so many bytes (RFC 8878, 3.1.1).
    let bomb = [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..], &(MAX_UNPACKED as u64 + 1).to_le_bytes(), &[1, 0, 0]].concat();
    let with = |body: &[u8]| sealed([&member[..HEADER], body].concat());
    assert!(matches!(decoded(&with(&bomb)), Err(Error::Corrupt(_))));
    assert!(matches!(decoded(&with(b"junk")), Err(Error::Corrupt(_))));
    assert!(matches!(decoded(&member[..member.len() - 1]), Err(Error::Corrupt(_))));
    assert!(matches!(decode_entry(columns(&entry(ContextChange::None)), &[VERSION + 1]), Err(Error::Corrupt(_))));
    assert!(matches!(decode_saga(&[]), Err(Error::Corrupt(_))));
}

#[test]
fn a_saga_far_larger_than_any_record_is_read_again() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut saga = testing::saga().new_tree(&mut runner).unwrap().current();
    saga.window.clear();
    saga.state.context = Json::from_valid(format!("\"{}\"", "x".repeat(65 << 20)));
    let entry = entry(ContextChange::None);
    saga.state.entry = convert::reference(&entry);
    saga.state.saga_id = entry.event.saga_id.clone();
    let stored = decoded(&encode_member(&entry, 5, None, Some(&saga))).unwrap();
    assert!(stored.saga.as_deref() == Some(&saga));
}

proptest! {
    #[test]
    fn a_member_comes_back_as_it_was(entry in testing::entry(), before in testing::object(), saga in proptest::option::of(testing::saga())) {
        let mut saga = saga;
        if let Some(saga) = &mut saga {
            saga.state.saga_id = entry.event.saga_id.clone();
        }
        if let (Some(saga), ContextChange::Full(full)) = (&mut saga, &entry.event.context) {
            saga.state.context = full.clone();
            saga.state.entry = convert::reference(&entry);
        }
        let member = encode_member(&entry, 5, Some(&before), saga.as_ref());
        prop_assert_eq!(&member, &encode_member(&entry, 5, Some(&before), saga.as_ref()));
        let mut stored = decode_member(&entry.event.saga_id, &member).unwrap();
        stored.entry.event.context = unsplice(before.as_str(), &stored.entry.event.context);
        prop_assert_eq!(stored.entry, entry);
        if let Some(saga) = &mut saga {
            saga.window.clear();
        }
        prop_assert_eq!(stored.saga.map(|s| *s), saga);
    }

    #[test]
    fn an_entry_comes_back_without_its_context(entry in testing::entry()) {
        let frame = encode_entry(&entry);
        prop_assert_eq!(&frame, &encode_entry(&entry));
        let (decoded, changed) = decode_entry(columns(&entry), &frame).unwrap();
        prop_assert_eq!(changed, entry.event.context != ContextChange::None);
        let mut entry = entry;
        entry.event.context = ContextChange::None;
        prop_assert_eq!(decoded, entry);
    }

    #[test]
    fn a_saga_comes_back_whole_except_its_context(saga in testing::saga()) {
        let frame = encode_saga(&saga);
        prop_assert_eq!(&frame, &encode_saga(&saga));
        let mut saga = saga;
        saga.state.context = Json::empty_object();
        prop_assert_eq!(decode_saga(&frame).unwrap(), saga);
    }

    #[test]
    fn frames_are_written_as_prost_writes_their_messages(
        entry in testing::entry(), before in testing::object(), saga in testing::saga(), with: bool
    ) {
        fn again<M: Message + Default>(frame: &[u8]) -> Vec<u8> {
            [vec![VERSION], from_frame::<M>(frame).expect("a frame").encode_to_vec()].concat()
        }
        let (cold, state) = (encode_entry(&entry), encode_saga(&saga));
        prop_assert_eq!(&cold, &again::<proto::Entry>(&cold));
        prop_assert_eq!(&state, &again::<proto::Saga>(&state));
        let member = encode_member(&entry, 5, Some(&before), with.then_some(&saga));
        let (_, flags, body) = split_member(&member).expect("a member");
        let frame = if flags & COMPRESSED == 0 { body.to_vec() } else { decompress(body).expect("packed") };
        prop_assert_eq!(&frame, &again::<proto::Member>(&frame));
    }

    #[test]
    fn damage_is_noticed(entry in testing::entry(), at: prop::sample::Index, byte: u8) {
        let mut member = encode_member(&entry, 5, None, None).to_vec();
        let at = at.index(member.len());
        let damaged = member[at] != byte;
        member[at] = byte;
        prop_assert_eq!(decoded(&member).is_err(), damaged);
        prop_assert!(decoded(&member[..at]).is_err());
    }
}
