//! Members that were written again by another fold: an owner that came with other settings, or a version that folds
//! otherwise, wrote again what was not durable. Of those the ones of this process's own fold are read. Pure; knows headers.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::hot::Member;
use crate::saga::position::Offset;
use crate::wire::frame::{MemberHeader, is_intact, peek_member};

/// Without what an owner with the fold `fold` has written again. What it has not come to yet, or what was durable before it
/// came, is as another fold left it.
pub fn current(members: &[Member], fold: u32) -> Cow<'_, [Member]> {
    let header = |member: &Member| peek_member(&member.bytes).ok();
    if members.iter().all(|member| header(member).is_none_or(|header| header.fold == fold)) {
        return Cow::Borrowed(members);
    }
    let mut refolded: HashMap<i32, (Offset, Offset)> = HashMap::new();
    for MemberHeader { partition, offset, .. } in members.iter().filter_map(header).filter(|header| header.fold == fold) {
        let range = refolded.entry(partition).or_insert((offset, offset));
        *range = (range.0.min(offset), range.1.max(offset));
    }
    let is_replaced = |header: MemberHeader| {
        let range = refolded.get(&header.partition).filter(|_| header.fold != fold);
        range.is_some_and(|(first, last)| (*first..=*last).contains(&header.offset))
    };
    let is_left_out = |member: &Member| header(member).is_some_and(is_replaced) && is_intact(&member.bytes);
    members.iter().filter(|member| !is_left_out(member)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::merge::{CandidateMarks, HotRun, ReadDepth, RunEnd, hot_run};
    use crate::hot::Mark;
    use crate::saga::event::{Kind, StepEvent};
    use crate::saga::fold::{Admitted, RecordMeta, Saga};
    use crate::saga::fold_settings::{FoldSettings, SnapshotPolicy};
    use crate::saga::position::{ChainId, Position, SagaId};
    use crate::saga::testing;
    use crate::saga::time::Micros;
    use crate::wire::frame::{decode_member, encode_member};

    fn settings(policy: SnapshotPolicy) -> FoldSettings {
        FoldSettings { policy, ..testing::settings() }
    }

    /// The members that an owner writes of one saga's records, whose offsets are given.
    fn written(settings: &FoldSettings, offsets: std::ops::Range<i64>) -> Vec<Member> {
        let mut slot: Option<Saga> = None;
        let members = (0..offsets.end).map(|n| {
            let event = StepEvent { event_id: n.to_string(), ..testing::event(Kind::ContextUpdated) };
            let meta = RecordMeta { position: Position::new("t", 0, n), timestamp: Micros(2_000_000_000_000_000 + n) };
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, settings) else { panic!("no entry") };
            let bytes = encode_member(&entry, settings.id(), None, slot.as_ref());
            Member { effective_time: entry.effective_time, bytes }
        });
        members.skip(offsets.start as usize).collect()
    }

    fn newest_first(mut members: Vec<Member>) -> Vec<Member> {
        members.sort_by(|a, b| (b.effective_time, &b.bytes).cmp(&(a.effective_time, &a.bytes)));
        members
    }

    fn run(members: &[Member], fold: &FoldSettings) -> HotRun {
        let chain = ChainId { topic: "t".into(), incarnation: 0, partition: 0 };
        let mark = Mark { from: Offset(0), to: Offset(100), complete_through: Micros(0), settled: Offset(0) };
        let (candidates, marks) = ([chain.clone()], [(chain, mark)]);
        let marks = CandidateMarks { candidates: &candidates, marks: &marks };
        hot_run(
            &current(members, fold.id()),
            ReadDepth::Start,
            &marks,
            |_| true,
            |bytes| decode_member(&SagaId::from("order-1"), bytes),
        )
    }

    #[test]
    fn what_an_owner_with_another_snapshot_policy_wrote_again_is_read_as_it_has_it() {
        let (before, now) = (settings(SnapshotPolicy::Manual), settings(SnapshotPolicy::EveryEvent));
        // All of 0..6 was written; 3 and 4 again, so far.
        let members = newest_first([written(&before, 0..6), written(&now, 3..5)].concat());
        let found = run(&members, &now);
        assert_eq!(found.ending, RunEnd::Reached);
        let snapshots: Vec<bool> = found.entries.iter().rev().map(|stored| stored.entry.snapshot).collect();
        assert_eq!(snapshots, [false, false, false, true, true, false]);
        let mixed = run(&members, &settings(SnapshotPolicy::OnFailure));
        assert_eq!(mixed.ending, RunEnd::Conflict, "who has neither fold cannot tell: the archive can");
    }

    #[test]
    fn a_damaged_member_is_not_taken_for_one_that_was_written_again() {
        let (before, now) = (settings(SnapshotPolicy::Manual), settings(SnapshotPolicy::EveryEvent));
        let mut members = [written(&before, 0..6), written(&now, 0..6)].concat();
        let mut damaged = members[6 + 2].bytes.to_vec();
        let other_fold = members[2].bytes.iter().zip(&damaged).position(|(a, b)| a != b).expect("another fold");
        damaged[other_fold] = members[2].bytes[other_fold];
        members[6 + 2].bytes = damaged.into();
        let left = current(&members, now.id());
        assert!(left.iter().any(|member| !is_intact(&member.bytes)), "it is left in, for its reader to find");
        assert_eq!(left.len(), 6);
    }

    #[test]
    fn members_of_one_fold_are_read_as_they_are() {
        let fold = settings(SnapshotPolicy::Manual);
        let members = newest_first(written(&fold, 0..3));
        assert!(matches!(current(&members, fold.id()), Cow::Borrowed(_)));
        assert_eq!(current(&members, fold.id() + 1).len(), 3, "another owner's, which nobody wrote again");
    }
}
