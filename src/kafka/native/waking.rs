//! A queue that wakes a thread when something comes into it, so that nobody has to look again and again.

use std::ffi::c_void;
use std::ptr;
use std::thread::Thread;

use rdkafka::bindings as rd;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::pointer::OwnedPointer;

/// A queue, and the thread that librdkafka unparks whenever the queue was empty and is not any more.
///
/// The thread must look into the queue after each wake and each time-out of its own until nothing comes out of it.
pub(in crate::kafka) struct WakingQueue {
    queue: OwnedPointer<rd::rd_kafka_queue_t>,
    /// Behind a pointer that librdkafka has: it must not move.
    thread: Option<Box<Thread>>,
}

impl WakingQueue {
    pub(super) fn new(queue: OwnedPointer<rd::rd_kafka_queue_t>) -> Self {
        Self { queue, thread: None }
    }

    /// The queue of a producer's acknowledgements. To be dropped before the producer is (2).
    pub(in crate::kafka) fn acknowledgements<C: ProducerContext>(producer: &BaseProducer<C>) -> Option<Self> {
        // SAFETY: the client is alive; returns a new reference or null.
        let queue = unsafe { rd::rd_kafka_queue_get_main(producer.client().native_ptr()) };
        OwnedPointer::new(queue, rd::rd_kafka_queue_destroy).map(Self::new)
    }

    pub(super) fn queue(&self) -> &OwnedPointer<rd::rd_kafka_queue_t> {
        &self.queue
    }

    pub(in crate::kafka) fn is_empty(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { rd::rd_kafka_queue_length(self.queue.ptr()) == 0 }
    }

    /// Wakes this thread, and no other, from now on.
    pub(in crate::kafka) fn wakes(&mut self, thread: Thread) {
        self.sleep_on();
        let thread = self.thread.insert(Box::new(thread));
        let opaque = ptr::from_ref::<Thread>(thread).cast_mut().cast();
        // SAFETY: the queue is alive; `opaque` points into the box, which is freed only once the callback is taken away again.
        unsafe { rd::rd_kafka_queue_cb_event_enable(self.queue.ptr(), Some(unpark), opaque) }
    }

    /// librdkafka calls the callback under the queue's lock, which this takes: afterwards it is not running, and never will.
    fn sleep_on(&mut self) {
        // SAFETY: the queue is alive.
        unsafe { rd::rd_kafka_queue_cb_event_enable(self.queue.ptr(), None, ptr::null_mut()) }
        self.thread = None;
    }
}

impl Drop for WakingQueue {
    fn drop(&mut self) {
        self.sleep_on();
    }
}

unsafe extern "C" fn unpark(_: *mut rd::rd_kafka_t, thread: *mut c_void) {
    // SAFETY: the pointer that `WakingQueue::wakes` gave, to a thread handle that is alive; it is only read.
    unsafe { &*thread.cast::<Thread>() }.unpark();
}
