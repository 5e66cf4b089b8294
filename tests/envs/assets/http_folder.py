"""A file server on loopback that knows ranges and can cut connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """What the server gives: files by path; ``cut`` says after how many bytes a path's first answer breaks off."""

    files: dict[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving(files: dict[str, bytes] | Path) -> Iterator[Served]:
    """A running server of ``files``: a mapping, or a folder."""
    given = Served({} if isinstance(files, Path) else files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            asked = self.headers.get("Range")
            given.requests.append((path, asked))
            place = files / path if isinstance(files, Path) else None
            data = given.files.get(path) if place is None else place.read_bytes() if place.is_file() else None
            if data is None:
                self.send_error(404)
                return
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and given.ranges else 0
            if begin and begin >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            end = given.cut.pop(path, len(data))
            self.wfile.write(data[begin:end])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    given.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield given
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
