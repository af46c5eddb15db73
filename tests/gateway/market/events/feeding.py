"""A local HTTP server that plays a feed of events, for tests. No assertions."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer


@dataclass
class Feeder:
    """What it answers, whatever the path; and what it was asked."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)


@contextlib.contextmanager
def feeding() -> Iterator[Feeder]:
    feeder = Feeder()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feeder.asked.append(self.path)
            feeder.agents.append(self.headers.get("User-Agent", ""))
            self.send_response(feeder.status)
            for name, value in feeder.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(feeder.body)

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    feeder.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield feeder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
