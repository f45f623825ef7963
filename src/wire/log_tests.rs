use proptest::prelude::*;

use super::*;
use crate::wire::avro::{SchemaRef, texts};
use crate::wire::json::MAX_DEPTH;
use crate::wire::testing;

fn names(text: &str) -> Vec<String> {
    read_object(text.as_bytes(), MAX_DEPTH).unwrap().members().into_iter().map(|(name, _)| name.to_owned()).collect()
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in testing::log_record(), avro: bool) {
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(SchemaId(9)), texts::REPLAY_LOG_ENTRY).unwrap();
        let value = encode_log(&record, avro.then_some(SchemaId(9))).unwrap();
        prop_assert_eq!(&value, &encode_log(&record, avro.then_some(SchemaId(9))).unwrap());
        let headers = crate::wire::headers::of_log(&record, avro, None);
        prop_assert_eq!(decode_log(Some(&value), &headers, &schemas), Ok(record));
    }

    #[test]
    fn answers_have_the_members_of_the_interface_and_nothing_for_resaga_alone(record in testing::log_record()) {
        let interface = "replay_id, request_id, request_sha256, batch_id, schedule_id, command, original_saga_id, new_saga_id, from, \
            override_sha256, force_failure, mode, dry_run, requested_by, reason, checkpoint, resume_step, compensated_since, changed, \
            executed_as, status, code, message, accepted_at, published_at, ended_at, outcome, undone_by, position";
        prop_assert_eq!(names(&log_answer(&record)), interface.split(", ").collect::<Vec<_>>());
        let topic = names(&log_json(&record));
        prop_assert!(topic.contains(&"request".to_owned()) && topic.contains(&"outcome_sequence".to_owned()));
    }
}
