//! The calls of librdkafka that rdkafka does not wrap. The one file of the crate with `unsafe`.
//!
//! Why it is needed: rdkafka's poll tells of a partition's end without topic and offset, has no ListOffsets with an
//! isolation level of its own (its watermarks are last stable offsets on a `read_committed` client), no topic ids and no
//! leader epochs; and it wraps each record in an `Arc`.
//!
//! Why it is sound: (1) every pointer that librdkafka hands over is owned by one guard below, which frees it once with the
//! function that librdkafka documents for it; pointers into an event are read only while its guard lives, and lifetimes tie
//! what is borrowed to the guard; (2) queues are freed before their client, as [`EventConsumer`] declares them first; (3) a
//! null is checked wherever librdkafka may return one; (4) strings and byte ranges are copied or borrowed with the length
//! that librdkafka gives; (5) librdkafka's functions used here are documented as thread safe, and the consumer is used by
//! one thread anyway.

#![expect(unsafe_code, reason = "rdkafka does not wrap what the intake needs; the safety argument is above")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::record::{Record, one_allocation};
use crate::saga::position::Offset;
use crate::saga::time::Micros;

/// Frees a pointer of librdkafka's when dropped.
struct Owned<T> {
    ptr: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// `ptr` must be owned by the caller and be freed by `free`.
    fn new(ptr: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(ptr).map(|ptr| Self { ptr, free })
    }
    fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, owned by this guard alone, and `free` is its destructor (1).
        unsafe { (self.free)(self.ptr.as_ptr()) }
    }
}

// SAFETY: librdkafka's queues and events may be used from any thread (5).
unsafe impl<T> Send for Owned<T> {}

/// A consumer whose queues are polled here: one with what happens to the group and the client, one with records.
pub(super) struct EventConsumer<C: ConsumerContext + 'static> {
    // Before `consumer`: freed before it (2).
    happenings: Owned<rd::rd_kafka_queue_t>,
    records: Owned<rd::rd_kafka_queue_t>,
    consumer: BaseConsumer<C>,
}

impl<C: ConsumerContext + 'static> EventConsumer<C> {
    /// `None`: the consumer has no group, so no queue of its own.
    pub(super) fn new(consumer: BaseConsumer<C>) -> Option<Self> {
        let client = consumer.client().native_ptr();
        // SAFETY: `client` lives as long as `consumer`; both calls return a new reference or null.
        let (happenings, records) = unsafe { (rd::rd_kafka_queue_get_consumer(client), rd::rd_kafka_queue_new(client)) };
        let records = Owned::new(records, rd::rd_kafka_queue_destroy)?;
        let happenings = Owned::new(happenings, rd::rd_kafka_queue_destroy)?;
        Some(Self { happenings, records, consumer })
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Lets what is fetched of a partition go to the queue of records. To be called before the partition is assigned.
    pub(super) fn separate(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the topic is a C string for the length of the call; the queue returned is a new reference or null.
        let queue = unsafe { rd::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition) };
        if let Some(queue) = Owned::new(queue, rd::rd_kafka_queue_destroy) {
            // SAFETY: both queues are alive; librdkafka counts its own reference to the destination.
            unsafe { rd::rd_kafka_queue_forward(queue.ptr(), self.records.ptr()) }
        }
    }

    /// The next of what happened to group and client. Keeps `max.poll.interval.ms` content.
    pub(super) fn poll_happening(&self, timeout: Duration) -> Option<Event> {
        Event::poll(&self.happenings, timeout)
    }

    /// The next record, or end or error of a partition.
    pub(super) fn poll_record(&self, timeout: Duration) -> Option<Event> {
        Event::poll(&self.records, timeout)
    }

    /// Generation of the group's membership; negative: none.
    pub(super) fn generation(&self) -> i32 {
        // SAFETY: returns an owned object or null; the generation is read while it is alive.
        unsafe {
            Owned::new(
                rd::rd_kafka_consumer_group_metadata(self.consumer.client().native_ptr()),
                rd::rd_kafka_consumer_group_metadata_destroy,
            )
            .map_or(-1, |metadata| rd::rd_kafka_consumer_group_metadata_generation_id(metadata.ptr()))
        }
    }
}

/// Something that came out of a queue.
pub(super) struct Event(Owned<rd::rd_kafka_event_t>);

/// An event, read.
pub(super) enum Happening<'a> {
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

impl Event {
    fn poll(queue: &Owned<rd::rd_kafka_queue_t>, timeout: Duration) -> Option<Self> {
        // SAFETY: the queue is alive; the event returned is ours, or null.
        let event = unsafe { rd::rd_kafka_queue_poll(queue.ptr(), millis(timeout)) };
        Owned::new(event, rd::rd_kafka_event_destroy).map(Self)
    }

    pub(super) fn read(&self) -> Happening<'_> {
        let event = self.0.ptr();
        // SAFETY: the event is alive for as long as `self` is borrowed, and what is borrowed of it ends with that borrow (1);
        // functions that are only for one type of event are called for that type.
        unsafe {
            match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_FETCH => match NonNull::new(rd::rd_kafka_event_message_next(event).cast_mut()) {
                    Some(message) => Happening::Message(Message { message, _event: PhantomData }),
                    None => Happening::Other,
                },
                rd::RD_KAFKA_EVENT_ERROR => {
                    let partition = Owned::new(rd::rd_kafka_event_topic_partition(event), rd::rd_kafka_topic_partition_destroy)
                        .map(|p| {
                            let p = p.ptr.as_ref();
                            (text(p.topic), p.partition, p.offset)
                        });
                    Happening::Error {
                        partition,
                        code: rd::rd_kafka_event_error(event).into(),
                        fatal: rd::rd_kafka_event_error_is_fatal(event) != 0,
                        reason: text(rd::rd_kafka_event_error_string(event)),
                    }
                }
                rd::RD_KAFKA_EVENT_REBALANCE => {
                    let partitions = partitions(rd::rd_kafka_event_topic_partition_list(event));
                    match rd::rd_kafka_event_error(event) {
                        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Happening::Assign(partitions),
                        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Happening::Revoke(partitions),
                        _ => Happening::Other,
                    }
                }
                rd::RD_KAFKA_EVENT_STATS => {
                    let json = rd::rd_kafka_event_stats(event);
                    if json.is_null() { Happening::Other } else { Happening::Statistics(CStr::from_ptr(json).to_bytes()) }
                }
                rd::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
                    if rd::rd_kafka_event_log(event, &raw mut facility, &raw mut message, &raw mut level) != 0 {
                        return Happening::Other;
                    }
                    Happening::Log { level: log_level(level), facility: text(facility), message: text(message) }
                }
                _ => Happening::Other,
            }
        }
    }
}

/// A record inside its event.
pub(super) struct Message<'a> {
    message: NonNull<rd::rd_kafka_message_t>,
    _event: PhantomData<&'a Event>,
}

impl Message<'_> {
    fn message(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: the event that holds the message is borrowed for as long as `self` lives (1).
        unsafe { self.message.as_ref() }
    }
    /// The topic's name.
    pub(super) fn topic(&self) -> &[u8] {
        // SAFETY: a message that was fetched has a topic, whose name lives as long as the message.
        unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.message().rkt)).to_bytes() }
    }
    pub(super) fn partition(&self) -> i32 {
        self.message().partition
    }
    pub(super) fn offset(&self) -> i64 {
        self.message().offset
    }
    /// Epoch of the leader that gave it; `None`: the broker did not tell.
    pub(super) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is alive.
        let epoch = unsafe { rd::rd_kafka_message_leader_epoch(self.message.as_ptr()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Copies everything into one allocation: librdkafka's buffer holds a whole fetch and must be let go soon.
    pub(super) fn record(&self) -> Record {
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
            Record { offset: Offset(message.offset), timestamp: Micros::from_millis(millis.max(0)), key, value, headers }
        }
    }
}

/// Which end of partitions to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Earliest,
    /// The high watermark.
    Latest,
}

/// Topic, partition, offset, leader epoch.
pub(super) type Listed = (String, i32, i64, Option<i32>);

/// ListOffsets with `read_uncommitted`, whatever the client reads with: one request for each leader. Blocks.
pub(super) fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: impl Iterator<Item = (String, i32)>,
    end: End,
    timeout: Duration,
) -> Result<Vec<Listed>, RDKafkaErrorCode> {
    let partitions: Vec<(String, i32)> = partitions.collect();
    let listed = ask_offsets(client, &partitions, end, timeout);
    if let Err(
        RDKafkaErrorCode::FencedLeaderEpoch | RDKafkaErrorCode::UnknownLeaderEpoch | RDKafkaErrorCode::NotLeaderForPartition,
    ) = listed
    {
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
            if (*partition).err != NO_ERROR {
                return Err((*partition).err.into());
            }
            let epoch = rd::rd_kafka_topic_partition_get_leader_epoch(partition);
            listed.push((text((*partition).topic), (*partition).partition, (*partition).offset, (epoch >= 0).then_some(epoch)));
        }
        Ok(listed)
    }
}

/// Kafka's ids of topics (base64), of those that exist and have one. Blocks.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<(String, String)>, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: `pointers` point at `names`, which live to the end of the function, and librdkafka copies them; the result is read
    // while its event is alive, the descriptions are an array of `count` pointers inside it.
    unsafe {
        let collection = Owned::new(
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

/// Says of which epoch the record before an offset must be, when the offset is assigned.
pub(super) fn set_leader_epoch(list: &mut TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    let Ok(topic) = CString::new(topic) else { return };
    // SAFETY: the list is alive and borrowed by us alone; the element found is inside it, or null.
    unsafe {
        let element = rd::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() {
            rd::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
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
) -> Result<Owned<rd::rd_kafka_event_t>, RDKafkaErrorCode> {
    // SAFETY: the client outlives the call; options, queue, error and event are owned by guards that free them.
    unsafe {
        let options =
            Owned::new(rd::rd_kafka_AdminOptions_new(client.native_ptr(), operation), rd::rd_kafka_AdminOptions_destroy)
                .ok_or(RDKafkaErrorCode::InvalidArgument)?;
        let mut reason = [0; 256];
        let set =
            rd::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), millis(timeout), reason.as_mut_ptr(), reason.len());
        if set != NO_ERROR {
            return Err(set.into());
        }
        if let Some(error) = Owned::new(more_options(options.ptr()), rd::rd_kafka_error_destroy) {
            return Err(rd::rd_kafka_error_code(error.ptr()).into());
        }
        let queue = Owned::new(rd::rd_kafka_queue_new(client.native_ptr()), rd::rd_kafka_queue_destroy)
            .ok_or(RDKafkaErrorCode::InvalidArgument)?;
        send(options.ptr(), queue.ptr());
        // A little longer than the request may take: librdkafka answers a time-out itself.
        let event = rd::rd_kafka_queue_poll(queue.ptr(), millis(timeout + Duration::from_secs(1)));
        let event = Owned::new(event, rd::rd_kafka_event_destroy).ok_or(RDKafkaErrorCode::OperationTimedOut)?;
        match rd::rd_kafka_event_error(event.ptr()) {
            NO_ERROR => Ok(event),
            error => Err(error.into()),
        }
    }
}

const NO_ERROR: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// # Safety
/// Null, or a C string that is alive.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: as the caller promises.
    if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer).to_string_lossy().into_owned() } }
}

/// # Safety
/// Null, or `size` bytes that are alive and unchanged for `'a`.
unsafe fn slice<'a>(pointer: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), size) })
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
