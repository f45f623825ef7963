"""The Apicurio registry, in memory, with the Confluent API that resaga speaks."""

import json
import secrets
import urllib.request

from . import install
from .process import Server, free_port


class Registry(Server):
    name = "registry"
    ready_within = 120

    def __init__(self, directory):
        super().__init__(directory)
        self.home = install.apicurio()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self._subject = f"ready-{secrets.token_hex(6)}"

    def command(self):
        jar = next(self.home.rglob("*runner.jar"))
        return ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1",
                f"-Dquarkus.http.port={self.port}", "-jar", str(jar)]

    def is_ready(self):
        # A subject with a name made up for this start: what lists it is ours.
        if not self._listed():
            self._call(f"/subjects/{self._subject}/versions", {"schema": '"string"'})
        return self._listed()

    def _listed(self):
        return self._subject in self._call("/subjects")

    def _call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/vnd.schemaregistry.v1+json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)
