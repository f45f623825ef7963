//! Sagas that a search found, counted in groups (`GET /v1/counts`). Pure.

use std::collections::BTreeMap;

use super::selector::FoundSaga;

/// What sagas are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    SagaName,
    Status,
    FailedStep,
    ErrorCode,
    ErrorType,
}

impl GroupBy {
    pub const ALL: [Self; 5] = [Self::SagaName, Self::Status, Self::FailedStep, Self::ErrorCode, Self::ErrorType];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SagaName => "saga_name",
            Self::Status => "status",
            Self::FailedStep => "failed_step",
            Self::ErrorCode => "error_code",
            Self::ErrorType => "error_type",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }

    fn of(self, saga: &FoundSaga) -> Option<String> {
        let error = saga.error.as_ref();
        match self {
            Self::SagaName => Some(saga.saga_name.clone()),
            Self::Status => Some(saga.status.as_str().to_owned()),
            Self::FailedStep => saga.failed_step.clone(),
            Self::ErrorCode => error.and_then(|error| error.code.clone()),
            Self::ErrorType => error.and_then(|error| error.kind.clone()),
        }
    }
}

/// Groups so far, by the values that their sagas have in common.
#[derive(Debug, Default)]
pub struct SagaGroups {
    counts: BTreeMap<Vec<Option<String>>, u64>,
    total: u64,
}

impl SagaGroups {
    pub fn add(&mut self, by: &[GroupBy], saga: &FoundSaga) {
        self.total += 1;
        if !by.is_empty() {
            *self.counts.entry(by.iter().map(|by| by.of(saga)).collect()).or_default() += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.counts.len()
    }

    /// Largest first, of equal ones by their values.
    pub fn largest_first(self) -> Vec<(Vec<Option<String>>, u64)> {
        let mut groups: Vec<_> = self.counts.into_iter().collect();
        groups.sort_by(|(one, count), (other, other_count)| other_count.cmp(count).then_with(|| one.cmp(other)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::event::ErrorInfo;
    use crate::saga::state::Status;
    use crate::saga::time::Micros;

    fn found(status: Status, step: Option<&str>, code: Option<&str>) -> FoundSaga {
        let error = code.map(|code| ErrorInfo { code: Some(code.into()), ..ErrorInfo::default() });
        FoundSaga {
            saga_id: "s".into(),
            saga_name: "order".into(),
            status,
            failed_step: step.map(str::to_owned),
            error,
            current_step: None,
            started_at: Micros(0),
            updated_at: Micros(0),
            failed_at: None,
            depth: 0,
            at: Micros(0),
        }
    }

    #[test]
    fn sagas_are_counted_by_what_they_have_in_common() {
        let mut groups = SagaGroups::default();
        let by = [GroupBy::FailedStep, GroupBy::ErrorCode];
        for (step, code, times) in [(Some("pay"), Some("TIMEOUT"), 3), (Some("pay"), None, 1), (None, None, 1)] {
            (0..times).for_each(|_| groups.add(&by, &found(Status::Failed, step, code)));
        }
        assert_eq!((groups.total(), groups.groups()), (5, 3));
        let text = |text: &str| Some(text.to_owned());
        let expected = [(vec![text("pay"), text("TIMEOUT")], 3), (vec![None, None], 1), (vec![text("pay"), None], 1)];
        assert_eq!(groups.largest_first(), expected);
        let mut ungrouped = SagaGroups::default();
        ungrouped.add(&[], &found(Status::Running, None, None));
        assert_eq!((ungrouped.total(), ungrouped.groups()), (1, 0));
    }
}
