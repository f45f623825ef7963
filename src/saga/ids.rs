//! Ids that resaga derives: functions of what was asked, so that executing a request twice gives the
//! same ids. All are UUIDv5.

use uuid::{Uuid, uuid};

use super::position::{EntrySequence, SagaId};
use super::time::Micros;

/// Namespace of request ids that are not UUIDs themselves.
const REQUESTS: Uuid = uuid!("c7aac146-62d0-5ad4-9794-3efb7127c08a");

/// U(request id): itself if it is a UUID in its form of 36 characters. Also the id of a batch or schedule.
pub fn request_uuid(request_id: &str) -> Uuid {
    match Uuid::try_parse(request_id) {
        Ok(id) if request_id.len() == 36 => id,
        _ => Uuid::new_v5(&REQUESTS, request_id.as_bytes()),
    }
}

pub fn replay_id(request_id: &str, saga_id: &SagaId) -> Uuid {
    Uuid::new_v5(&request_uuid(request_id), saga_id.as_str().as_bytes())
}

/// The restored saga's id, unless the request gives one.
pub fn new_saga_id(replay_id: Uuid, saga_id: &SagaId) -> SagaId {
    SagaId::new(Uuid::new_v5(&replay_id, saga_id.as_str().as_bytes()).to_string())
}

/// The id of a CANCEL or UNDO, of the replay that it names.
pub fn command_replay_id(request_id: &str, named_replay_id: &str) -> Uuid {
    Uuid::new_v5(&request_uuid(request_id), named_replay_id.as_bytes())
}

/// The request id of the OUTCOME record for a restored saga's end.
pub fn outcome_request_id(replay_id: &str, end: EntrySequence) -> Uuid {
    // Replay ids are UUIDs; an engine may send another text in a lineage, and that gives an id as well.
    Uuid::new_v5(&request_uuid(replay_id), end.to_string().as_bytes())
}

/// The request id of what a schedule asks for at a due time.
pub fn run_request_id(schedule_id: &str, due: Micros) -> Uuid {
    Uuid::new_v5(&request_uuid(schedule_id), due.to_string().as_bytes())
}

/// The request id of what a policy asks for because of an entry.
pub fn policy_request_id(schedule_id: &str, saga_id: &SagaId, entry: EntrySequence) -> Uuid {
    Uuid::new_v5(&request_uuid(schedule_id), format!("{}/{entry}", saga_id.as_str()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(request: &str, saga: &str) -> (String, String) {
        let saga = SagaId::from(saga);
        let replay = replay_id(request, &saga);
        (replay.to_string(), new_saga_id(replay, &saga).to_string())
    }

    #[test]
    fn the_test_vectors_of_the_interface_hold() {
        let request = "0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10";
        let cases = [
            (request, "order-1", "900f44fb-faac-5e2b-928c-b4ea3c60c892", "e9de0afa-4568-5eca-b7bf-49a4260d05a1"),
            ("INC-4412/1", "order-1", "efdf55a4-80ba-5d7c-815a-e3a645f31898", "3cef9842-dc5a-5f6c-ad28-64b3c0783460"),
            (request, "Größe/7 🚚", "1b9c17d9-35cf-5589-b2ad-8ed9bfceea86", "c2b8aae3-0cf0-58f5-9127-1804579d17ad"),
        ];
        for (request, saga, replay, new) in cases {
            assert_eq!(ids(request, saga), (replay.into(), new.into()), "{request} {saga}");
        }
    }

    #[test]
    fn only_the_form_with_hyphens_is_a_uuid_and_its_case_does_not_matter() {
        let upper = "0194F3A0-7C1E-7CC3-9B1A-3D2F6A5B8C10";
        assert_eq!(request_uuid(upper).to_string(), upper.to_lowercase());
        for other in ["0194f3a07c1e7cc39b1a3d2f6a5b8c10", "{0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10}", ""] {
            assert_eq!(request_uuid(other), Uuid::new_v5(&REQUESTS, other.as_bytes()), "{other}");
        }
    }
}
