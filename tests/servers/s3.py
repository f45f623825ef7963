"""SeaweedFS with its S3 door: one process, one bucket."""

import datetime
import hashlib
import hmac
import http.client
import json
import secrets

from . import install
from .process import Server, free_port

REGION = "us-east-1"


class SeaweedFs(Server):
    name = "seaweedfs"
    ready_within = 90

    def __init__(self, directory, bucket="resaga"):
        super().__init__(directory)
        self.weed = install.seaweedfs()
        self.port = free_port(spare=(10_000,))
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.bucket = bucket
        # Made up for each start: a signature that is accepted shows that the server is ours.
        self.key, self.secret = "K" + secrets.token_hex(9), secrets.token_hex(20)
        self._bucket_exists = False
        (self.directory / "data").mkdir(exist_ok=True)
        self._config = self.directory / "s3.json"
        self._config.write_text(json.dumps({"identities": [{
            "name": "tests", "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}))
        self._ports = {"s3": self.port, **{part: free_port(spare=(10_000,)) for part in ("master", "volume", "filer")}}

    def command(self):
        return [str(self.weed), "-logtostderr=true", "server", f"-dir={self.directory}/data", "-s3", f"-s3.config={self._config}", *(f"-{part}.port={port}" for part, port in self._ports.items()),
                "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.electionTimeout=1s",
                "-master.volumeSizeLimitMB=128", "-volume.max=64", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]

    def litter(self):
        # Sockets whose place cannot be chosen.
        both = [f"/tmp/seaweedfs-{part}-grpc-{port + 10_000}.sock" for part, port in self._ports.items()]
        return both + [f"/tmp/seaweedfs-{part}-{self._ports[part]}.sock" for part in ("s3", "filer")]

    def is_ready(self):
        # It listens, and answers 403, seconds before it can store: only a PUT that succeeds counts.
        if not self._bucket_exists:
            self._bucket_exists = self.signed("PUT", f"/{self.bucket}")[0] in (200, 409)
        return self._bucket_exists and self.signed("PUT", f"/{self.bucket}/ready", b"ready")[0] == 200

    def signed(self, method, path, body=b""):
        """(status, body) of one request with an AWS signature, version 4; `path` without characters to escape."""
        host = f"127.0.0.1:{self.port}"
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        canonical = "\n".join([method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, digest])
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
