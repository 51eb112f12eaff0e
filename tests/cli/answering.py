"""An HTTP server that answers as a test wants, and remembers what was posted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

TIMEOUT_S = 20


@dataclass
class Answering:
    """Where it is, what it answers from now on, and what it got: path, headers, body."""

    url: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    posts: Queue[tuple[str, dict[str, str], bytes]] = field(default_factory=Queue)


@contextmanager
def answering(status: int = 200, body: bytes = b"", **headers: str) -> Iterator[Answering]:
    """Answer every post so; underscores in the names of headers are dashes."""
    found = Answering("", status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted = self.rfile.read(int(self.headers["content-length"]))
            found.posts.put((self.path, {k.lower(): v for k, v in self.headers.items()}, posted))
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            """Keep standard error free of a line for each post."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
