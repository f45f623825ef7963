#!/usr/bin/env python3
"""Publishes step events from stdin, one a line: `saga_id|{...}`, or `{...}` alone with its `saga_id` as the key.

    BROKERS=127.0.0.1:9092 EVENTS_TOPIC=saga.events.v1 python3 publish.py < events.txt

Ends with 0 once every broker has acknowledged every event.
"""

import json
import os
import sys

from confluent_kafka import Producer

BROKERS = os.environ.get("BROKERS", "127.0.0.1:9092")
EVENTS_TOPIC = os.environ.get("EVENTS_TOPIC", "saga.events.v1")

# Restored sagas' first events are written by resaga: both must choose the same partition for a key.
producer = Producer({"bootstrap.servers": BROKERS, "partitioner": "murmur2_random", "enable.idempotence": True, "message.timeout.ms": 30_000})
refused = []


def acknowledged(error, _message):
    if error:
        refused.append(error)


def publish(line):
    key, value = (json.loads(line)["saga_id"], line) if line.startswith("{") else line.split("|", 1)
    while True:
        try:
            return producer.produce(EVENTS_TOPIC, value, key, on_delivery=acknowledged)
        except BufferError:
            producer.poll(0.1)


for line in filter(None, map(str.strip, sys.stdin)):
    publish(line)
producer.flush()
if refused:
    sys.exit(f"{len(refused)} events were not acknowledged: {refused[0]}")
