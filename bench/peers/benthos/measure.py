"""measure.py BENTHOS s3|redis|both TOPIC EVENTS: runs one pipeline over the topic, counts what the stores then hold, prints a
line of JSON and removes it again. The servers are those of RESAGA_TEST_*, as tests/servers/up writes them."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs
import redis
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

HERE = Path(__file__).resolve().parent
DATABASE = 62
STALLED_SECONDS = 180
VERSION = "4.27.0"
NAMES = {"s3": "S3 Parquet", "redis": "Redis, 500 ZADD a call", "both": "S3 Parquet and Redis, 500 ZADD a call"}


def server(name):
    return os.environ[f"RESAGA_TEST_{name}"]


class Topic:
    """The topic, and how far the group has committed it."""

    def __init__(self, name, group):
        self.group = group
        self.consumer = Consumer({"bootstrap.servers": server("KAFKA"), "group.id": group, "enable.auto.commit": False})
        partitions = self.consumer.list_topics(name, timeout=20).topics[name].partitions
        self.partitions = [TopicPartition(name, partition) for partition in partitions]
        bounds = [self.consumer.get_watermark_offsets(partition, timeout=20) for partition in self.partitions]
        self.events = sum(end - begin for begin, end in bounds)
        self.ends = sum(end for begin, end in bounds if end > begin)

    def committed(self):
        return sum(max(0, partition.offset) for partition in self.consumer.committed(self.partitions, timeout=20))

    def remove_group(self):
        self.consumer.close()
        admin = AdminClient({"bootstrap.servers": server("KAFKA")})
        admin.delete_consumer_groups([self.group])[self.group].exception(20)


class Objects:
    """What lies in the bucket under this run's prefix."""

    def __init__(self, prefix):
        self.path = f"{server('S3_BUCKET')}/{prefix}".rstrip("/")
        self.files = pyarrow.fs.S3FileSystem(
            access_key=server("S3_KEY"), secret_key=server("S3_SECRET"), endpoint_override=server("S3_ENDPOINT"), region="us-east-1")

    def count(self):
        """(events, rows, bytes, objects)."""
        found = self.files.get_file_info(pyarrow.fs.FileSelector(self.path, recursive=True))
        found = [info for info in found if info.type == pyarrow.fs.FileType.File]
        rows = pyarrow.dataset.dataset([info.path for info in found], format="parquet", filesystem=self.files)
        ids = rows.to_table(columns=["event_id"])["event_id"]
        return pyarrow.compute.count_distinct(ids).as_py(), len(ids), sum(info.size for info in found), len(found)

    def remove(self):
        if self.files.get_file_info(self.path).type == pyarrow.fs.FileType.Directory:
            self.files.delete_dir(self.path)


class SortedSets:
    """A database of its own."""

    def __init__(self):
        self.url = f"{server('REDIS').rpartition('/')[0]}/{DATABASE}"
        self.client = redis.Redis.from_url(self.url)
        if self.client.dbsize():
            sys.exit(f"{self.url} is not empty")
        self.before = self.used()

    def used(self):
        return self.client.info("memory")["used_memory"]

    def count(self):
        """(members, bytes)."""
        members, stored, cursor = 0, self.used() - self.before, None
        while cursor != 0:
            cursor, keys = self.client.scan(cursor or 0, count=5_000)
            pipeline = self.client.pipeline(transaction=False)
            for key in keys:
                pipeline.zcard(key)
            members += sum(pipeline.execute())
        return members, stored

    def remove(self):
        self.client.flushdb()


def run(process, topic):
    """Waits until all is committed: (CPU seconds, peak MiB)."""
    last, moved = -1, time.monotonic()
    while (done := topic.committed()) < topic.ends:
        if done != last:
            last, moved = done, time.monotonic()
        if process.poll() is not None:
            sys.exit(f"benthos ended with {process.returncode}")
        if time.monotonic() - moved > STALLED_SECONDS:
            sys.exit(f"stalled: {done} of {topic.ends} committed")
        time.sleep(0.1)
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{process.pid}/status").read_text()
    return cpu, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main():
    program, store, topic_name, events = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    group = f"benthos-{uuid.uuid4().hex[:12]}"
    topic = Topic(topic_name, group)
    if topic.events != events:
        sys.exit(f"{topic_name} holds {topic.events} events, not {events}")
    objects = Objects(f"{group}/") if store != "redis" else None
    sets = SortedSets() if store != "s3" else None
    environment = {
        "BROKERS": server("KAFKA"), "TOPIC": topic_name, "GROUP": group, "S3_PREFIX": f"{group}/", "AWS_EC2_METADATA_DISABLED": "true",
        "REDIS": sets.url if sets else server("REDIS"), **{f"S3_{part}": server(f"S3_{part}") for part in ("ENDPOINT", "BUCKET", "KEY", "SECRET")}}
    began = time.monotonic()
    process = subprocess.Popen([program, "--set", "http.enabled=false", "--log.level", "WARN", "-r", HERE / "resources.yaml", "-c", HERE / f"{store}.yaml"],
                               env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        cpu, peak = run(process, topic)
        seconds = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        line = {"peer": f"benthos {VERSION} to {NAMES[store]}", "events": events, "cpu_us_per_event": round(cpu * 1e6 / events, 2), "rss_mib": round(peak),
                "seconds": round(seconds, 2), "events_per_s": round(events / seconds), "stored_bytes": 0}
        if objects:
            found, rows, stored, files = objects.count()
            if found != events:
                sys.exit(f"S3 has {found} events, not {events}")
            line |= {"s3_bytes": stored, "s3_objects": files, "s3_rows_twice": rows - found}
            line["stored_bytes"] += stored
        if sets:
            members, stored = sets.count()
            if members != events:
                sys.exit(f"Redis has {members} events, not {events}")
            line |= {"redis_bytes": stored}
            line["stored_bytes"] += stored
        line["note"] = ("at-least-once; no fold, no state, no dedup by event id, so nothing answers for a point in time; "
                        "the release of April 2024, under the MIT licence, of the engine that became Redpanda Connect")
        print(json.dumps(line), flush=True)
    finally:
        process.kill()
        process.wait()
        if objects:
            objects.remove()
        if sets:
            sets.remove()
        topic.remove_group()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
