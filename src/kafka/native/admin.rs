//! Questions to brokers through librdkafka's admin calls: ends of partitions, ids of topics. And which brokers to ask.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::pointer::{NO_ERROR, OwnedPointer, millis, text};

/// Which end of partitions to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum End {
    Earliest,
    /// The high watermark.
    Latest,
}

/// Topic, partition, and its offset with the leader epoch, or why the leader gave none.
pub(in crate::kafka) type Listed = (String, i32, Result<(i64, Option<i32>), RDKafkaErrorCode>);

/// Adds brokers (`host:port,...`) that the client does not have. Gives how many it did not.
pub(in crate::kafka) fn add_brokers<C: ClientContext>(client: &Client<C>, brokers: &str) -> i32 {
    let Ok(brokers) = CString::new(brokers) else { return 0 };
    // SAFETY: the client outlives the call; the list is a C string for the length of the call, librdkafka copies it.
    unsafe { rd::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) }
}

/// ListOffsets with `read_uncommitted`, whatever the client reads with: one request for each leader. A partition without a
/// leader, or whose leader does not answer, takes the whole time and fails the question for all. Blocks.
pub(in crate::kafka) fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: impl Iterator<Item = (String, i32)>,
    end: End,
    timeout: Duration,
) -> Result<Vec<Listed>, RDKafkaErrorCode> {
    let partitions: Vec<(String, i32)> = partitions.collect();
    let listed = ask_offsets(client, &partitions, end, timeout);
    let is_elsewhere = |code: &RDKafkaErrorCode| {
        use RDKafkaErrorCode::{FencedLeaderEpoch, NotLeaderForPartition, UnknownLeaderEpoch};
        matches!(code, FencedLeaderEpoch | UnknownLeaderEpoch | NotLeaderForPartition)
    };
    let moved = match &listed {
        Ok(listed) => listed.iter().any(|(.., offset)| offset.as_ref().is_err_and(is_elsewhere)),
        Err(code) => is_elsewhere(code),
    };
    if moved {
        // librdkafka asks by the leaders and epochs it remembers, and would go on doing so after an election. What it
        // learns here is for the caller's next try.
        let mut topics: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        for topic in topics {
            let _ = client.fetch_metadata(Some(topic), timeout);
        }
    }
    listed
}

fn ask_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(String, i32)],
    end: End,
    timeout: Duration,
) -> Result<Vec<Listed>, RDKafkaErrorCode> {
    let mut asked = TopicPartitionList::new();
    let spec = match end {
        End::Earliest => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
        End::Latest => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
    } as i64;
    for (topic, partition) in partitions {
        asked.add_partition(topic, *partition);
    }
    // SAFETY: the list's elements are an array of `cnt`; the client outlives the call; the result is read while its event is
    // alive, the infos are an array of `count` pointers inside it.
    unsafe {
        let list = asked.ptr();
        for at in 0..usize::try_from((*list).cnt).unwrap_or(0) {
            (*(*list).elems.add(at)).offset = spec;
        }
        let event = admin(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            |options| {
                let uncommitted = rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
                rd::rd_kafka_AdminOptions_set_isolation_level(options, uncommitted)
            },
            |options, queue| rd::rd_kafka_ListOffsets(client.native_ptr(), list, options, queue),
        )?;
        let mut count = 0;
        let infos = rd::rd_kafka_ListOffsets_result_infos(rd::rd_kafka_event_ListOffsets_result(event.ptr()), &raw mut count);
        let mut listed = Vec::with_capacity(count);
        for at in 0..count {
            let partition = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(at));
            let epoch = rd::rd_kafka_topic_partition_get_leader_epoch(partition);
            let offset = match (*partition).err {
                // librdkafka 2.12 answers a leader's silence with offset -1001 and no error. Taken for an end, all
                // would be read to it: replays planned from less than the log, and `complete_through` moving on without a broker.
                NO_ERROR if (*partition).offset < 0 => Err(RDKafkaErrorCode::OperationTimedOut),
                NO_ERROR => Ok(((*partition).offset, (epoch >= 0).then_some(epoch))),
                error => Err(error.into()),
            };
            listed.push((text((*partition).topic), (*partition).partition, offset));
        }
        Ok(listed)
    }
}

/// Kafka's ids of topics (base64), of those that exist and have one. Blocks.
pub(in crate::kafka) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<(String, String)>, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: `pointers` point at `names`, which live to the end of the function, and librdkafka copies them; the result is read
    // while its event is alive, the descriptions are an array of `count` pointers inside it.
    unsafe {
        let collection = OwnedPointer::new(
            rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            rd::rd_kafka_TopicCollection_destroy,
        )
        .ok_or(RDKafkaErrorCode::InvalidArgument)?;
        let event = admin(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            |_| ptr::null_mut(),
            |options, queue| rd::rd_kafka_DescribeTopics(client.native_ptr(), collection.ptr(), options, queue),
        )?;
        let mut count = 0;
        let described =
            rd::rd_kafka_DescribeTopics_result_topics(rd::rd_kafka_event_DescribeTopics_result(event.ptr()), &raw mut count);
        let mut ids = Vec::with_capacity(count);
        for at in 0..count {
            let topic = *described.add(at);
            let error = rd::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && rd::rd_kafka_error_code(error) != NO_ERROR {
                continue;
            }
            let id = rd::rd_kafka_TopicDescription_topic_id(topic);
            // All zero: a broker from before topic ids.
            if id.is_null()
                || (rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0)
            {
                continue;
            }
            ids.push((text(rd::rd_kafka_TopicDescription_name(topic)), text(rd::rd_kafka_Uuid_base64str(id))));
        }
        Ok(ids)
    }
}

/// Sends one admin request and waits for its result.
///
/// # Safety
/// `send` must only use the pointers it gets during the call.
unsafe fn admin<C: ClientContext>(
    client: &Client<C>,
    operation: rd::rd_kafka_admin_op_t,
    timeout: Duration,
    more_options: impl FnOnce(*mut rd::rd_kafka_AdminOptions_t) -> *mut rd::rd_kafka_error_t,
    send: impl FnOnce(*const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
) -> Result<OwnedPointer<rd::rd_kafka_event_t>, RDKafkaErrorCode> {
    // SAFETY: the client outlives the call; options, queue, error and event are owned by guards that free them.
    unsafe {
        let options =
            OwnedPointer::new(rd::rd_kafka_AdminOptions_new(client.native_ptr(), operation), rd::rd_kafka_AdminOptions_destroy)
                .ok_or(RDKafkaErrorCode::InvalidArgument)?;
        let mut reason = [0; 256];
        let set =
            rd::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), millis(timeout), reason.as_mut_ptr(), reason.len());
        if set != NO_ERROR {
            return Err(set.into());
        }
        if let Some(error) = OwnedPointer::new(more_options(options.ptr()), rd::rd_kafka_error_destroy) {
            return Err(rd::rd_kafka_error_code(error.ptr()).into());
        }
        let queue = OwnedPointer::new(rd::rd_kafka_queue_new(client.native_ptr()), rd::rd_kafka_queue_destroy)
            .ok_or(RDKafkaErrorCode::InvalidArgument)?;
        send(options.ptr(), queue.ptr());
        // A little longer than the request may take: librdkafka answers a time-out itself.
        let event = rd::rd_kafka_queue_poll(queue.ptr(), millis(timeout + Duration::from_secs(1)));
        let event = OwnedPointer::new(event, rd::rd_kafka_event_destroy).ok_or(RDKafkaErrorCode::OperationTimedOut)?;
        match rd::rd_kafka_event_error(event.ptr()) {
            NO_ERROR => Ok(event),
            error => Err(error.into()),
        }
    }
}
