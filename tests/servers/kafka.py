"""A real Kafka broker: one node, broker and controller in one process, and brokers that join it."""

import base64
import socket
import struct
import subprocess
import uuid

from . import install
from .process import Server, free_port

LOG4J = """<Configuration status="WARN"><Appenders><Console name="out"><PatternLayout pattern="%d{HH:mm:ss,SSS} %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


class Kafka(Server):
    name = "kafka"
    ready_within = 120

    def __init__(self, directory, properties=None, joins=None):
        """`joins`: the node, already running, whose cluster this one becomes the second broker of."""
        super().__init__(directory)
        self.libraries = install.kafka()
        # A leading dash would be read as an option.
        own_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        self.cluster_id = joins.cluster_id if joins else own_id
        self.nodes = 2 if joins else 1
        self.port, self.controller = free_port(), joins.controller if joins else free_port()
        self.address = f"127.0.0.1:{self.port}"
        listeners = [f"PLAINTEXT://{self.address}", *([] if joins else [f"CONTROLLER://127.0.0.1:{self.controller}"])]
        settings = {
            "process.roles": "broker" if joins else "broker,controller",
            "node.id": self.nodes,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller}",
            "listeners": ",".join(listeners),
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.directory / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            "log.cleaner.backoff.ms": 1000,
            "log.cleaner.dedupe.buffer.size": 16_777_216,
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 400,
            "auto.create.topics.enable": "false",
            **(properties or {}),
        }
        self._file = self.directory / "server.properties"
        self._file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self.directory / "log4j2.xml").write_text(LOG4J)

    def _java(self, *arguments):
        # Compiler tier 1 and the serial collector: half the CPU of a broker that lives for minutes.
        return ["java", "-Xms256m", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                f"-Dlog4j2.configurationFile={self.directory}/log4j2.xml", "-cp", f"{self.libraries}/*", *arguments]

    def command(self):
        return self._java("kafka.Kafka", str(self._file))

    def launch(self):
        if not (self.directory / "data").exists():
            done = subprocess.run(self._java("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(self._file)),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise SystemExit(f"kafka storage format failed:\n{done.stdout}")
        return super().launch()

    def is_ready(self):
        nodes, cluster_id = metadata(self.port)
        return nodes >= self.nodes and cluster_id == self.cluster_id


def metadata(port):
    """(number of brokers, cluster id): a Metadata request, version 4, for no topic at all."""
    body = struct.pack(">hhih", 3, 4, 7, 6) + b"resaga" + struct.pack(">ib", 0, 0)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        reader = connection.makefile("rb")
        size, = struct.unpack(">i", reader.read(4))
        answer = memoryview(reader.read(size))
    nodes, = struct.unpack_from(">i", answer, 8)  # after correlation id and throttle time
    at = 12
    for _ in range(nodes):
        at += 4  # node id
        host, = struct.unpack_from(">h", answer, at)
        at += 2 + host + 4  # host, port
        rack, = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack, 0)
    length, = struct.unpack_from(">h", answer, at)
    return nodes, bytes(answer[at + 2:at + 2 + length]).decode()
