//! Which members of a saga's key, and which records, lie in one of its homes.

use crate::hot::Member;
use crate::saga::position::{ChainId, Position};
use crate::wire::frame::{is_intact, peek_member};

/// The members that lie in partitions of the home; `None`: all do. One that is damaged is left in: it speaks for itself.
pub(super) fn of_home(members: &[Member], home: &[ChainId]) -> Option<Vec<Member>> {
    let is_all = members.iter().all(|member| may_be_of(member, home));
    (!is_all).then(|| members.iter().filter(|member| may_be_of(member, home) || !is_intact(&member.bytes)).cloned().collect())
}

pub(super) fn may_be_of(member: &Member, home: &[ChainId]) -> bool {
    peek_member(&member.bytes).ok().is_none_or(|header| home.iter().any(|chain| chain.partition == header.partition))
}

pub(super) fn is_of(position: &Position, home: &[ChainId]) -> bool {
    home.iter().any(|chain| holds(chain, position))
}

/// May the chain hold the record?
pub(super) fn holds(chain: &ChainId, position: &Position) -> bool {
    chain.topic == position.topic && chain.partition == position.partition
}
