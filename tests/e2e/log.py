"""The log as any other program sees it, through a client that resaga does not use (confluent-kafka)."""

import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from jsontext import dumps, loads
from model import Record


class Log:
    def __init__(self, address):
        self.address = address
        self.admin = AdminClient({"bootstrap.servers": address})
        self.producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2_random", "linger.ms": 5, "enable.idempotence": True,
                                  "queue.buffering.max.messages": 1_000_000})

    def create(self, topics, partitions, within=30, **config):
        wanted = [NewTopic(name, partitions, 1, config={"message.timestamp.type": "LogAppendTime", **config}) for name in topics]
        for future in self.admin.create_topics(wanted).values():
            future.result(within)
        deadline = time.monotonic() + within
        while True:
            known = self.admin.list_topics(timeout=10).topics
            if all(name in known and len(known[name].partitions) == partitions for name in topics):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"topics {topics} do not show their partitions")
            time.sleep(0.1)

    def delete(self, topics):
        known = self.admin.list_topics(timeout=10).topics
        for future in self.admin.delete_topics([name for name in topics if name in known]).values():
            future.result(30)

    def send(self, topic, key, value, headers=None, partition=None, timestamp=None):
        value = dumps(value).encode() if isinstance(value, dict) else value
        key = key.encode() if isinstance(key, str) else key
        extra = {name: value for name, value in (("partition", partition), ("timestamp", timestamp)) if value is not None}
        while True:
            try:
                self.producer.produce(topic, value, key, headers=headers, **extra)
                break
            except BufferError:
                self.producer.poll(0.1)
        self.producer.poll(0)

    def flush(self, within=60):
        left = self.producer.flush(within)
        assert left == 0, f"{left} records were not acknowledged within {within} s"

    def _consumer(self, committed):
        return Consumer({"bootstrap.servers": self.address, "group.id": "judge", "enable.auto.commit": False, "auto.offset.reset": "earliest",
                         "isolation.level": "read_committed" if committed else "read_uncommitted", "enable.partition.eof": True, "check.crcs": True})

    def read(self, topic, committed=True, within=60):
        """All messages of a topic up to its end as this isolation level sees it, by partition and offset."""
        consumer = self._consumer(committed)
        try:
            partitions = sorted(consumer.list_topics(topic, 10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
            messages, open_ones, deadline = [], set(partitions), time.monotonic() + within
            while open_ones:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"end of {topic} not reached within {within} s: {open_ones}")
                for message in consumer.consume(1_000, 0.2):
                    if message.error() is None:
                        messages.append(message)
                    elif message.error().name() == "_PARTITION_EOF":
                        open_ones.discard(message.partition())
                    elif not message.error().retriable():
                        raise RuntimeError(f"read {topic}: {message.error()}")
            return sorted(messages, key=lambda m: (m.partition(), m.offset()))
        finally:
            consumer.close()

    def ends(self, topic):
        """{partition: (earliest, end)}, control records included."""
        consumer = self._consumer(False)
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            return {partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), 10) for partition in partitions}
        finally:
            consumer.close()

    def stable_ends(self, topic):
        """{partition: last stable offset}: where a `read_committed` reader stands still for an open transaction."""
        consumer = self._consumer(True)
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            return {partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1] for partition in partitions}
        finally:
            consumer.close()

    def committed(self, group, topic):
        """{partition: offset} that a group has committed (-1001: none)."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            return {found.partition: found.offset for found in consumer.committed([TopicPartition(topic, p) for p in partitions], 10)}
        finally:
            consumer.close()

    def assignment(self, group, topic):
        """{member: number of partitions of the topic}, of the members that have any."""
        members = self.admin.describe_consumer_groups([group])[group].result(10).members
        counted = {m.member_id: sum(1 for p in m.assignment.topic_partitions if p.topic == topic) for m in members}
        return {member: count for member, count in counted.items() if count}


class Follower:
    """A `read_committed` reader that reads a topic while things break, not only afterwards."""

    def __init__(self, log, topic):
        self.values, self._stop, self._log, self._topic = [], threading.Event(), log, topic
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        consumer = self._log._consumer(committed=True)
        partitions = consumer.list_topics(self._topic, 10).topics[self._topic].partitions
        consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions])
        while not self._stop.is_set():
            self.values += [message.value() for message in consumer.consume(100, 0.2) if message.error() is None]
        consumer.close()

    def stop(self):
        self._stop.set()
        self._thread.join(10)
        return self.values


def records(messages):
    """Step events as the model takes them."""
    return [Record(m.topic(), m.partition(), m.offset(), m.timestamp()[1] * 1_000, loads(m.value().decode())) for m in messages]
