//! Is the log of a partition still the one that its chain was made from? Pure; for the role when it takes a partition over, and
//! for `doctor`.

use crate::cold::owner::Owners;
use crate::cold::segment::SegmentInfo;
use crate::saga::position::Offset;
use crate::telemetry::Alarm;

/// What Kafka says of a partition.
#[derive(Debug, Clone)]
pub struct LogBounds {
    /// The oldest offset that is still there.
    pub earliest: Offset,
    /// High watermark.
    pub end: Offset,
    pub topic_id: Option<String>,
}

/// Why the log is not the one that the chain was made from, if so: the alarm and its reason.
pub fn chain_mismatch(log: &LogBounds, next: Offset, newest: Option<&SegmentInfo>, owners: &Owners) -> Option<(Alarm, String)> {
    if let Some(Err(of_another)) = newest.map(|newest| owners.check_segment(newest)) {
        return Some((Alarm::StoreOfAnother, of_another.to_string()));
    }
    let (earliest, end) = (log.earliest, log.end);
    let was = newest.and_then(|newest| newest.topic_id.as_ref());
    if let (Some(was), Some(is)) = (was, &log.topic_id)
        && was != is
    {
        return Some((Alarm::TopicReplaced, "the topic was deleted and created again".into()));
    }
    if next < earliest {
        let reason = format!("offsets {next} to {} were deleted before they were durable (retention)", earliest.0 - 1);
        return Some((Alarm::OffsetsGone, reason));
    }
    if next > end {
        let reason = format!("the partition ends at {end} but was durable to {next}: it was replaced or truncated");
        return Some((Alarm::OffsetsReplaced, reason));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(earliest: i64, end: i64) -> LogBounds {
        LogBounds { earliest: Offset(earliest), end: Offset(end), topic_id: None }
    }

    #[test]
    fn a_chain_that_ends_inside_the_log_goes_on() {
        for next in [5, 7, 9] {
            assert_eq!(chain_mismatch(&log(5, 9), Offset(next), None, &Owners::default()), None);
        }
    }

    #[test]
    fn offsets_that_are_gone_or_replaced_stop_the_partition() {
        assert_eq!(
            chain_mismatch(&log(5, 9), Offset(4), None, &Owners::default()).map(|(alarm, _)| alarm),
            Some(Alarm::OffsetsGone)
        );
        assert_eq!(
            chain_mismatch(&log(5, 9), Offset(10), None, &Owners::default()).map(|(alarm, _)| alarm),
            Some(Alarm::OffsetsReplaced)
        );
    }
}
