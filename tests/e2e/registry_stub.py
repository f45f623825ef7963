"""A schema registry that can be away, lag and forget: what the real one does not do when asked (Confluent's API, the part that resaga uses)."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from servers.process import free_port


class RegistryStub:
    def __init__(self):
        self.port, self.schemas, self.asked, self.takes, self._server = free_port(), {}, [], 0, None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                stub.asked.append(unquote(self.path))
                # Seconds for each answer.
                time.sleep(stub.takes)
                found = self.path.startswith("/schemas/ids/") and stub.schemas.get(int(self.path.rpartition("/")[2]))
                self.answer(200, {"schema": found}) if found else self.answer(404, {"error_code": 40403, "message": "Schema not found"})

            def do_POST(self):
                schema = json.loads(self.rfile.read(int(self.headers["content-length"])))["schema"]
                number = next((n for n, known in stub.schemas.items() if known == schema), len(stub.schemas) + 1)
                stub.schemas[number] = schema
                self.answer(200, {"id": number})

            def log_message(self, *arguments):
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
