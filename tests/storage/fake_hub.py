"""A hub on this machine, as far as the client's ``create_repo``, ``upload_folder`` and ``snapshot_download`` ask."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Repositories are dictionaries of files; every file travels within the commit."""

    repositories: dict[str, dict[str, bytes]]

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        if found := re.match(r"/api/models/([^/]+/[^/?]+)", self.path):
            if (files := self.repositories.get(found[1])) is None:
                self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            if "/tree/" in self.path:
                told = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in files.items()]
                self._answer(told)
                return
            siblings = [{"rfilename": name} for name in files]
            self._answer({"id": found[1], "modelId": found[1], "sha": COMMIT, "siblings": siblings})
            return
        found = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        if found is None:
            self._answer({"error": "Not found"}, 404)
            return
        data = self.repositories[found[1]][found[2]]
        self._answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/repos/create"):
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}"})
        elif self.path.startswith("/api/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.repositories[found[1]][entry["value"]["path"]] = content
            self._answer(
                {"commitUrl": f"http://{self.headers['Host']}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            raise AssertionError(self.path)


@contextmanager
def hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """Its address, and its repositories."""
    kind = type("Hub", (Hub,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind.repositories
    finally:
        server.shutdown()
        server.server_close()
