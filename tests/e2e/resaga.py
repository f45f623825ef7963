"""The real binary as a black box: started with an environment, asked over HTTP and by its command line, stopped, killed, frozen."""

import http.client
import os
import signal
import subprocess
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from jsontext import loads
from servers.process import Server, free_port, wait_for


def binary():
    path = os.environ.get("RESAGA_TEST_BINARY") or Path(__file__).resolve().parents[2] / "target/release/resaga"
    if not Path(path).exists():
        raise SystemExit(f"{path} is missing: cargo build --release")
    return str(path)


def environment(settings):
    """`{"kafka.group_id": "x"}` as RESAGA__KAFKA__GROUP_ID=x; what has no dot goes as it is."""
    return {("RESAGA__" + name.upper().replace(".", "__")) if "." in name else name: str(value) for name, value in settings.items()}


def run(arguments, settings, timeout=60):
    """One command of the binary, to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RESAGA_", "AWS_"))}
    return subprocess.run([binary(), *arguments], env={**clean, **environment(settings)}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)


@dataclass
class Answer:
    status: int
    body: object
    headers: dict

    @property
    def code(self):
        return self.body.get("code") if isinstance(self.body, dict) else None


def quote(text):
    return urllib.parse.quote(text, safe="")


class Resaga(Server):
    """One `resaga serve` process."""

    ready_within = 60

    def __init__(self, directory, name, settings, roles=None):
        super().__init__(directory)
        self.name, self.roles = name, roles
        self.port = free_port()
        self.settings = {**settings, "api.listen": f"127.0.0.1:{self.port}"}

    def command(self):
        return [self.binary, "serve", *(["--roles", self.roles] if self.roles else [])]

    def environment(self):
        return environment(self.settings)

    def launch(self):
        # Servers of the test session and credentials of the machine are none of its business; which binary it is, is ours.
        chosen = binary()
        kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("RESAGA_", "AWS_"))}
        try:
            self.binary = chosen
            return super().launch()
        finally:
            os.environ.update(kept)

    def is_ready(self):
        return self.get("/readyz").status == 200

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def get(self, path, timeout=30, **query):
        return self.request("GET", path, None, timeout, **query)

    def post(self, path, body, timeout=30, headers=None):
        return self.request("POST", path, body, timeout, headers)

    def request(self, method, path, body=None, timeout=30, headers=None, **query):
        given = [(name, value) for name, value in query.items() if value is not None]
        if given:
            path += "?" + urllib.parse.urlencode(given, doseq=True)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **(headers or {})})
            got = connection.getresponse()
            text = got.read().decode()
            is_json = "json" in (got.headers.get("content-type") or "")
            return Answer(got.status, loads(text) if is_json and text else text, dict(got.headers))
        finally:
            connection.close()

    def state(self, saga_id, **query):
        return self.get(f"/v1/sagas/{quote(saga_id)}", **query)

    def replay(self, replay_id):
        return self.get(f"/v1/replays/{quote(replay_id)}")

    def metrics(self):
        """{metric with its labels: value}."""
        found = {}
        for line in self.get("/metrics").body.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self, within=40):
        """SIGTERM; the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within)
        self.forget()
        return code, time.monotonic() - began

    def wait_exit(self, within):
        code = self.process.wait(within)
        self.forget()
        return code

    def exited_within(self, seconds):
        """Its exit code, or None if it still runs."""
        try:
            return self.wait_exit(seconds)
        except subprocess.TimeoutExpired:
            return None

    def await_event(self, model, saga_id, within=60):
        """Waits until the newest entry that the model knows of this saga is in the answer."""
        newest = model.sagas[saga_id].entries[-1].sequence

        def there():
            answer = self.state(saga_id)
            return answer.status == 200 and int(answer.body["entry"]["sequence"]) >= newest
        wait_for(f"entry {newest} of {saga_id}", there, within)
