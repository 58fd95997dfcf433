"""A model hub on this machine: what all tests of huggingface_hub share of its server."""

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubHandler(BaseHTTPRequestHandler):
    """Answers; a test's own ``do_GET`` says what. ``self.server.state`` is the test's."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(body, headers)

    def send_body(self, body, headers):
        self.wfile.write(body)


@contextmanager
def serving(handler, state, cache):
    """Serve until the end of the block; yield the environment of a process that asks this hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.state = state
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = ("HF_HUB_OFFLINE", "HF_HOME")
    env = {k: v for k, v in os.environ.items() if k not in known and "proxy" not in k.lower()}
    try:
        yield env | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
    finally:
        server.shutdown()
        server.server_close()
