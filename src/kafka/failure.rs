//! librdkafka's errors as ours: sorted by what the caller does next.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::Error;

/// Wrong settings, as the configuration's reader reports them.
pub(super) const CONFIG_INVALID: &str = "config_invalid";
/// A topic that must exist does not.
pub const TOPIC_MISSING: &str = "topic_missing";
/// The partition went to another member of the group.
pub const NOT_ASSIGNED: &str = "not_assigned";

pub(super) fn of(action: &str, error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, description, key, _) => {
            Error::invalid(CONFIG_INVALID, format!("kafka.properties.{key}: {description}"))
        }
        KafkaError::ClientCreation(description) => Error::invalid(CONFIG_INVALID, format!("kafka.properties: {description}")),
        KafkaError::AdminOp(code) => of_code(action, *code),
        KafkaError::Transaction(error) => of_code(action, error.code()),
        other => match other.rdkafka_error_code() {
            Some(code) => of_code(action, code),
            None => Error::unavailable(format!("{action}: {other}")),
        },
    }
}

pub(super) fn of_code(action: &str, code: Code) -> Error {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Error::invalid(TOPIC_MISSING, format!("{action}: topic or partition does not exist"))
        }
        Code::MessageSizeTooLarge => Error::refused("too_large", format!("{action}: record is larger than the topic takes")),
        Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId => {
            Error::refused(NOT_ASSIGNED, format!("{action}: {code}"))
        }
        Code::InvalidConfig | Code::InvalidPartitions | Code::InvalidReplicationFactor | Code::InvalidTopic => {
            Error::invalid(CONFIG_INVALID, format!("{action}: {code}"))
        }
        _ => Error::unavailable(format!("{action}: {code}")),
    }
}

/// The broker understood and does not allow it.
pub(super) fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
    )
}
