"""A private Redis, and a private cluster of three."""

import socket
import subprocess

from .process import Server, free_port, wait_for


class Redis(Server):
    name = "redis"
    ready_within = 20

    def __init__(self, directory, port=None, options=()):
        super().__init__(directory)
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.address}/0"
        self.options = options

    def command(self):
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "64",
                "--dir", str(self.directory), "--zset-max-listpack-value", "4096", "--maxmemory-policy", "noeviction", *self.options]

    def is_ready(self):
        # The pid shows that it is ours that answers, not a stranger on the same port.
        return f"process_id:{self.process.pid}\r\n" in self.ask("INFO", "server")

    def follow(self, primary):
        """Becomes the replica of another; it has everything when this returns."""
        self.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_for("replica in step", lambda: "master_link_status:up" in self.ask("INFO", "replication") and primary.ask("WAIT", "1", "1000") == "1", 20)

    def lose_sight(self):
        """Gets nothing more from its primary, and keeps what it has."""
        self.ask("REPLICAOF", "127.0.0.1", "1")

    def take_over(self, primary):
        """The primary is gone, and this one answers at its address."""
        primary.kill()
        self.ask("REPLICAOF", "NO", "ONE")
        self.ask("CONFIG", "SET", "port", str(primary.port))
        self.port, self.address, self.url = primary.port, primary.address, primary.url

    def ask(self, *words):
        """One command, its reply as text (errors too)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            reader = connection.makefile("rb")
            first = reader.readline()
            if first[:1] != b"$" or first[:2] == b"$-":
                return first[1:].decode().strip()
            return reader.read(int(first[1:])).decode()


class RedisCluster:
    """Three masters without replicas; `members` are stopped like every other server."""

    def __init__(self, directory):
        self.members = []
        for number in range(3):
            port = free_port(spare=(10_000,))  # the bus of the cluster listens there
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--databases", "1")
            self.members.append(Redis(f"{directory}/{number}", port, options))
        self.url = "redis+cluster://" + ",".join(member.address for member in self.members)

    def launch(self):
        for member in self.members:
            member.launch()
        return self

    def await_ready(self):
        for member in self.members:
            member.await_ready()
        addresses = [member.address for member in self.members]
        done = subprocess.run(["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"redis cluster was not made:\n{done.stdout}")
        wait_for("redis cluster ok", lambda: all("cluster_state:ok" in member.ask("CLUSTER", "INFO") for member in self.members), 30)
        return self

    def stop(self):
        for member in self.members:
            member.kill()
