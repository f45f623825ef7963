"""One server process: its directory, its pid file, and how to stop exactly it and nothing else."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

# Below the range from which the kernel takes ports for outgoing connections, so that nobody is given one of ours.
_PORTS = range(12_000, 22_000)
# Of pytest-xdist: each worker has ports of its own, for between "is it free" and "it is taken" another might take it.
_WORKER, _WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given = set()


def free_port(spare=()):
    """A free loopback port; with `spare=(10000,)` the port that much higher is free as well."""
    for _ in range(1_000):
        port = random.choice(_PORTS[_WORKER::_WORKERS])
        wanted = {port, *(port + more for more in spare)}
        if not wanted & _given and all(_is_free(p) for p in wanted):
            _given.update(wanted)
            return port
    raise RuntimeError("no free loopback port found")


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def wait_for(what, condition, seconds, every=0.1):
    """Waits until `condition()` is true; its exceptions count as false until the time is over."""
    deadline = time.monotonic() + seconds
    problem = "condition is false"
    while True:
        try:
            value = condition()
            if value:
                return value
        except Exception as error:  # a server that starts refuses in many ways
            problem = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {seconds} s: {problem}")
        time.sleep(every)


def start_time(pid):
    """Kernel ticks at which the process began, or None: with the pid it names one process for ever."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def signal_file(pid_file, number):
    """Signals the process that the pid file names, if it is still that process."""
    try:
        pid, began = pid_file.read_text().splitlines()[0].split()
    except (FileNotFoundError, IndexError, ValueError):
        return False
    if start_time(int(pid)) != began:
        return False
    try:
        os.kill(int(pid), number)
    except ProcessLookupError:
        return False
    return True


def remove_litter(pid_file):
    """What the lines after the first name."""
    if pid_file.exists():
        for path in pid_file.read_text().splitlines()[1:]:
            Path(path).unlink(missing_ok=True)


class Server:
    """A server with a directory of its own. Subclasses give `command()` and `is_ready()`."""

    name = "server"
    ready_within = 60

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = None

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        raise NotImplementedError

    def environment(self):
        return {}

    def litter(self):
        """Files outside of its directory that the server leaves behind."""
        return []

    @property
    def pid_file(self):
        return self.directory / f"{self.name}.pid"

    @property
    def log(self):
        return self.directory / f"{self.name}.log"

    def launch(self):
        """Starts the process and does not wait: several servers come up side by side."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, **self.environment()})
        self.pid_file.write_text("\n".join([f"{self.process.pid} {start_time(self.process.pid)}", *self.litter()]))
        return self

    def await_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            return self.is_ready()
        try:
            wait_for(f"{self.name} ready", ready, self.ready_within)
        except TimeoutError as error:
            raise SystemExit(f"{error}\n{self.tail()}") from error
        return self

    def start(self):
        return self.launch().await_ready()

    def tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self):
        """As a power cut would; the data directory stays."""
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.forget()

    def forget(self):
        remove_litter(self.pid_file)
        self.pid_file.unlink(missing_ok=True)
