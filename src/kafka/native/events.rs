//! A consumer's queues, and what comes out of them.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::thread::Thread;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::pointer::{NO_ERROR, OwnedPointer, slice, text};
use super::waking::WakingQueue;
use crate::kafka::broker_clock::Stamp;
use crate::kafka::record::{Record, one_allocation, recorded};
use crate::saga::position::Offset;
use crate::saga::time::Micros;

/// A consumer whose queues are polled here: one with what happens to the group and the client, one with records.
pub(in crate::kafka) struct EventConsumer<C: ConsumerContext + 'static> {
    // Before `consumer`: freed before it (2).
    group_events: WakingQueue,
    records: WakingQueue,
    consumer: BaseConsumer<C>,
}

impl<C: ConsumerContext + 'static> EventConsumer<C> {
    /// `None`: the consumer has no group, so no queue of its own.
    pub(in crate::kafka) fn new(consumer: BaseConsumer<C>) -> Option<Self> {
        let client = consumer.client().native_ptr();
        // SAFETY: `client` lives as long as `consumer`; both calls return a new reference or null.
        let (group_events, records) = unsafe { (rd::rd_kafka_queue_get_consumer(client), rd::rd_kafka_queue_new(client)) };
        let records = OwnedPointer::new(records, rd::rd_kafka_queue_destroy)?;
        let group_events = OwnedPointer::new(group_events, rd::rd_kafka_queue_destroy)?;
        Some(Self { group_events: WakingQueue::new(group_events), records: WakingQueue::new(records), consumer })
    }

    /// Wakes this thread when there is something to poll.
    pub(in crate::kafka) fn wakes(&mut self, thread: &Thread) {
        self.group_events.wakes(thread.clone());
        self.records.wakes(thread.clone());
    }

    pub(in crate::kafka) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Lets what is fetched of a partition go to the queue of records. To be called before the partition is assigned.
    pub(in crate::kafka) fn separate(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the topic is a C string for the length of the call; the queue returned is a new reference or null.
        let queue = unsafe { rd::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition) };
        if let Some(queue) = OwnedPointer::new(queue, rd::rd_kafka_queue_destroy) {
            // SAFETY: both queues are alive; librdkafka counts its own reference to the destination.
            unsafe { rd::rd_kafka_queue_forward(queue.ptr(), self.records.queue().ptr()) }
        }
    }

    /// The next of what happened to group and client. Keeps `max.poll.interval.ms` content.
    pub(in crate::kafka) fn poll_group_event(&self) -> Option<QueueEvent> {
        QueueEvent::poll(self.group_events.queue())
    }

    /// The next record, or end or error of a partition.
    pub(in crate::kafka) fn poll_record(&self) -> Option<QueueEvent> {
        QueueEvent::poll(self.records.queue())
    }

    /// Generation of the group's membership; negative: none.
    pub(in crate::kafka) fn generation(&self) -> i32 {
        // SAFETY: returns an owned object or null; the generation is read while it is alive.
        unsafe {
            OwnedPointer::new(
                rd::rd_kafka_consumer_group_metadata(self.consumer.client().native_ptr()),
                rd::rd_kafka_consumer_group_metadata_destroy,
            )
            .map_or(-1, |metadata| rd::rd_kafka_consumer_group_metadata_generation_id(metadata.ptr()))
        }
    }
}

/// Something that came out of a queue.
pub(in crate::kafka) struct QueueEvent(OwnedPointer<rd::rd_kafka_event_t>);

/// An event, read.
pub(in crate::kafka) enum ConsumerEvent<'a> {
    Message(Message<'a>),
    /// An error of a partition (its end is one of them) or of the client.
    Error {
        partition: Option<(String, i32, i64)>,
        code: RDKafkaErrorCode,
        fatal: bool,
        reason: String,
    },
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
    Statistics(&'a [u8]),
    Log {
        level: RDKafkaLogLevel,
        facility: String,
        message: String,
    },
    /// Nothing that concerns us.
    Other,
}

impl QueueEvent {
    /// Does not wait.
    fn poll(queue: &OwnedPointer<rd::rd_kafka_queue_t>) -> Option<Self> {
        // SAFETY: the queue is alive; the event returned is ours, or null.
        let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), 0) };
        OwnedPointer::new(event, rd::rd_kafka_event_destroy).map(Self)
    }

    pub(in crate::kafka) fn read(&self) -> ConsumerEvent<'_> {
        let event = self.0.ptr();
        // SAFETY: the event is alive for as long as `self` is borrowed, and what is borrowed of it ends with that borrow (1);
        // functions that are only for one type of event are called for that type.
        unsafe {
            match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_FETCH => match NonNull::new(rd::rd_kafka_event_message_next(event).cast_mut()) {
                    Some(message) => ConsumerEvent::Message(Message { message, _event: PhantomData }),
                    None => ConsumerEvent::Other,
                },
                rd::RD_KAFKA_EVENT_ERROR => {
                    let partition =
                        OwnedPointer::new(rd::rd_kafka_event_topic_partition(event), rd::rd_kafka_topic_partition_destroy).map(
                            |p| {
                                let p = p.ptr.as_ref();
                                (text(p.topic), p.partition, p.offset)
                            },
                        );
                    ConsumerEvent::Error {
                        partition,
                        code: rd::rd_kafka_event_error(event).into(),
                        fatal: rd::rd_kafka_event_error_is_fatal(event) != 0,
                        reason: text(rd::rd_kafka_event_error_string(event)),
                    }
                }
                rd::RD_KAFKA_EVENT_REBALANCE => {
                    let partitions = partitions(rd::rd_kafka_event_topic_partition_list(event));
                    match rd::rd_kafka_event_error(event) {
                        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => ConsumerEvent::Assign(partitions),
                        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => ConsumerEvent::Revoke(partitions),
                        _ => ConsumerEvent::Other,
                    }
                }
                rd::RD_KAFKA_EVENT_STATS => {
                    let json = rd::rd_kafka_event_stats(event);
                    if json.is_null() { ConsumerEvent::Other } else { ConsumerEvent::Statistics(CStr::from_ptr(json).to_bytes()) }
                }
                rd::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
                    if rd::rd_kafka_event_log(event, &raw mut facility, &raw mut message, &raw mut level) != 0 {
                        return ConsumerEvent::Other;
                    }
                    ConsumerEvent::Log { level: log_level(level), facility: text(facility), message: text(message) }
                }
                _ => ConsumerEvent::Other,
            }
        }
    }
}

/// A record inside its event.
pub(in crate::kafka) struct Message<'a> {
    message: NonNull<rd::rd_kafka_message_t>,
    _event: PhantomData<&'a QueueEvent>,
}

impl Message<'_> {
    fn message(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: the event that holds the message is borrowed for as long as `self` lives (1).
        unsafe { self.message.as_ref() }
    }
    /// The topic's name.
    pub(in crate::kafka) fn topic(&self) -> &[u8] {
        // SAFETY: a message that was fetched has a topic, whose name lives as long as the message.
        unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.message().rkt)).to_bytes() }
    }
    pub(in crate::kafka) fn partition(&self) -> i32 {
        self.message().partition
    }
    pub(in crate::kafka) fn offset(&self) -> i64 {
        self.message().offset
    }
    /// Epoch of the leader that gave it; `None`: the broker did not tell.
    pub(in crate::kafka) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is alive.
        let epoch = unsafe { rd::rd_kafka_message_leader_epoch(self.message.as_ptr()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Who said when it was recorded.
    pub(in crate::kafka) fn stamp(&self) -> Stamp {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let millis = unsafe { rd::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        match kind {
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Stamp::Broker(Micros::from_millis(millis)),
            _ => Stamp::Producer,
        }
    }

    /// Copies everything into one allocation: librdkafka's buffer holds a whole fetch and must be let go soon.
    pub(in crate::kafka) fn record(&self) -> Record {
        let message = self.message();
        // SAFETY: pointer and length describe memory inside the message, or are null (4); headers belong to the message.
        unsafe {
            let key = slice(message.key, message.key_len);
            let value = slice(message.payload, message.len);
            let mut headers: Vec<(String, Option<&[u8]>)> = Vec::new();
            let mut list = ptr::null_mut();
            if rd::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list) == NO_ERROR {
                let (mut name, mut data, mut size) = (ptr::null(), ptr::null(), 0);
                while rd::rd_kafka_header_get_all(list, headers.len(), &raw mut name, &raw mut data, &raw mut size) == NO_ERROR {
                    headers.push((text(name), slice(data, size)));
                }
            }
            let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let millis = rd::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind);
            let (key, value, headers) = one_allocation(key, value, headers);
            let timestamp = recorded(millis);
            let by_broker = matches!(kind, rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME);
            Record { offset: Offset(message.offset), timestamp, by_broker, key, value, headers }
        }
    }
}

/// Says of which epoch the record before an offset must be, when the offset is assigned.
pub(in crate::kafka) fn set_leader_epoch(list: &mut TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    let Ok(topic) = CString::new(topic) else { return };
    // SAFETY: the list is alive and borrowed by us alone; the element found is inside it, or null.
    unsafe {
        let element = rd::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() {
            rd::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
}

/// # Safety
/// Null, or a list that is alive.
unsafe fn partitions(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<(String, i32)> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the elements are an array of `cnt`.
    unsafe {
        (0..usize::try_from((*list).cnt).unwrap_or(0))
            .map(|at| {
                let element = (*list).elems.add(at);
                (text((*element).topic), (*element).partition)
            })
            .collect()
    }
}

/// syslog(3) levels.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}
