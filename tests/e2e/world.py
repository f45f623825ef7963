"""A world of one test: topics, group, Redis database and S3 prefix that nobody else has, and the processes in it."""

import itertools
import os
import uuid

from archive import Archive
from log import Log, records
from model import Model
from resaga import Resaga, run
from servers.process import wait_for

PARTITIONS = 4
# Of pytest-xdist: workers keep out of each other's databases.
WORKER, WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_databases = itertools.count()
_instances = itertools.count(1)


class World:
    """`servers`: kafka (address), redis (url), s3_endpoint, s3_bucket, s3_key, s3_secret."""

    def __init__(self, directory, servers, partitions=PARTITIONS, redis_url=None, **settings):
        self.directory, self.servers, self.partitions = directory, servers, partitions
        self.id = uuid.uuid4().hex[:10]
        self.log = Log(servers["kafka"])
        self.events, self.requests, self.restored, self.replay_log, self.dead_letters = (
            f"{name}.{self.id}" for name in ("events", "requests", "restored", "log", "dead"))
        self.topics = [self.events, self.requests, self.restored, self.replay_log, self.dead_letters]
        self.log.create([self.events, self.requests], partitions)
        self.log.create([self.restored, self.replay_log, self.dead_letters], partitions, **{"max.message.bytes": 8 << 20})
        self.archive = Archive(servers["s3_endpoint"], servers["s3_bucket"], self.id, servers["s3_key"], servers["s3_secret"])
        # Databases 40 and up are left to the Rust tests and the demo.
        database = next(_databases) % (39 // WORKERS) * WORKERS + WORKER + 1
        self.redis_url = redis_url or f"{servers['redis'].rpartition('/')[0]}/{database}"
        self.settings = {
            "kafka.brokers": servers["kafka"], "kafka.group_id": f"g-{self.id}",
            "kafka.properties.session_timeout_ms": 6000, "kafka.properties.heartbeat_interval_ms": 500,
            "topics.events": self.events, "topics.requests": self.requests, "topics.restored": self.restored, "topics.log": self.replay_log,
            "topics.dead_letters": self.dead_letters, "topics.partitions": partitions,
            "hot.url": self.redis_url, "cold.url": f"s3://{servers['s3_bucket']}/{self.id}", "cold.endpoint": servers["s3_endpoint"],
            "cold.region": "us-east-1", "cold.path_style": "true", "cold.flush_interval": "1s", "serve.shutdown_timeout": "20s",
            "AWS_ACCESS_KEY_ID": servers["s3_key"], "AWS_SECRET_ACCESS_KEY": servers["s3_secret"], "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "RUST_BACKTRACE": "1", **settings}
        self.processes = []
        self.redis().flushdb()

    def redis(self, db_url=None):
        import redis
        return redis.Redis.from_url(db_url or self.redis_url)

    def launch(self, instance=None, roles=None, **settings):
        """Starts a process without waiting for it."""
        number = next(_instances)
        name = f"resaga-{number}"
        merged = {**self.settings, "kafka.instance": instance or f"i{number}", **settings}
        process = Resaga(self.directory, name, merged, roles)
        self.processes.append(process)
        process.launch()
        return process

    def start(self, instance=None, roles=None, **settings):
        return self.launch(instance, roles, **settings).await_ready()

    def run(self, *arguments, timeout=60, **settings):
        return run(list(arguments), {**self.settings, **settings}, timeout)

    def send(self, stream):
        """Sends (saga id, event) pairs to the events topic and waits for the acknowledgements."""
        count = 0
        for saga_id, event in stream:
            self.log.send(self.events, saga_id, event)
            count += 1
        self.log.flush()
        return count

    def request(self, request, key=None):
        self.log.send(self.requests, key or request["saga_id"], request)
        self.log.flush()

    def judge(self, skip=()):
        """A model that has read the events topic to its end; `skip`: (partition, offset) of records known to be dead letters."""
        model = Model()
        for record in records([m for m in self.log.read(self.events) if (m.partition(), m.offset()) not in skip]):
            model.read(record)
        return model

    def accepted(self, model):
        return {(e.record.partition, e.record.offset) for saga in model.sagas.values() for e in saga.entries}

    def await_caught_up(self, within=120):
        """Waits until the materialize group has committed everything, which it does only when it is durable."""
        ends = {}
        for message in self.log.read(self.events):
            ends[message.partition()] = message.offset() + 1

        def done():
            committed = self.log.committed(f"{self.settings['kafka.group_id']}-materialize", self.events)
            behind = {partition: committed[partition] for partition, end in ends.items() if committed[partition] < end}
            assert not behind, f"committed {behind}"
            return True
        wait_for(f"group of {self.id} at {ends}", done, within, every=0.3)

    def evidence(self):
        """Where the log and its readers stand, for whoever asks why a test failed."""
        for topic in self.topics:
            ends, stable = self.log.ends(topic), self.log.stable_ends(topic)
            yield f"{topic}: (earliest, end) {ends}; last stable {stable}"
        for role, topic in (("materialize", self.events), ("materialize-log", self.replay_log), ("replay", self.requests)):
            group = f"{self.settings['kafka.group_id']}-{role}"
            yield f"{group} on {topic}: {self.log.committed(group, topic)}; members {self.log.assignment(group, topic)}"
        for process in self.processes:
            if process.is_running():
                yield f"{process.name}: ready {process.get('/readyz', 5).body}"
                yield "\n".join(f"  {name} {value}" for name, value in process.metrics().items() if value and "_bucket" not in name)

    def close(self):
        for process in self.processes:
            if process.is_running():
                process.kill()
        self.log.delete(self.topics)
        if os.environ.get("RESAGA_TEST_KEEP"):
            return
        try:
            self.redis().flushdb()
        except Exception as error:  # a test may have ended its Redis
            print(f"redis not emptied: {error}")
