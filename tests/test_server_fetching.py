"""Pictures of URLs: only from public addresses, with limits on size, time and redirects."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ggq.errors import UsageError
from ggq.runtime.server import fetching


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header("location", self.path.partition("?")[2] or self.path)
            self.end_headers()
            return
        body = {"/picture": b"pixels", "/large": bytes(3000)}.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def place():
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def anywhere(_):
    return True


def test_bytes_come_through_redirects(place):
    assert fetching.fetch(f"{place}/picture", anywhere) == b"pixels"
    assert fetching.fetch(f"{place}/to?/picture", anywhere) == b"pixels"


def test_limits(place, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_BYTES", 2000)
    for path, problem in (
        ("/large", "has more than"),
        ("/none", "answers 404"),
        ("/to", "leads on more than 3 times"),
        ("/to?file:///etc/passwd", "is no http or https URL"),
    ):
        with pytest.raises(UsageError, match=problem):
            fetching.fetch(place + path, anywhere)
    monkeypatch.setattr(fetching, "_SECONDS", -1)
    with pytest.raises(UsageError, match="takes more than"):
        fetching.fetch(f"{place}/picture", anywhere)


def test_private_addresses_are_never_asked(place, monkeypatch):
    asked = []
    monkeypatch.setattr(fetching.socket, "create_connection", asked.append)
    hosts = ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254")
    for host in hosts:
        with pytest.raises(UsageError, match="is not at a public address"):
            fetching.fetch(f"http://{host}/x.png")
    assert asked == []


def test_a_public_name_may_not_lead_to_a_private_one(place):
    first = []

    def public(address):
        first.append(address)
        return len(first) == 1

    with pytest.raises(UsageError, match="is not at a public address"):
        fetching.fetch(f"{place}/to?/picture", public)
