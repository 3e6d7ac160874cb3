"""A hub on this computer: the answers that a client of huggingface.co gets, from folders."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GONE = (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
GATED = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"})
UNREACHABLE = (302, {"Location": "http://127.0.0.1:9"})  # a port that nobody listens at


@contextmanager
def serve_hub(models):
    """Serve models while the block runs.

    Args:
        models: hub id -> a folder; or an answer, (status, headers), to every question; or a folder and the answer to
            every question for a file of it.

    Yields:
        The address, for HF_ENDPOINT.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"models": models}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    models: dict = {}

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def log_message(self, *_):
        pass

    def _answer(self, with_body):
        path = unquote(urlsplit(self.path).path).strip("/")
        name = "/".join(path.removeprefix("api/models/").split("/")[:2])
        found = self.models.get(name, GONE)
        rest = path.removeprefix("api/models/").removeprefix(name).strip("/").split("/")
        if isinstance(found, tuple) and isinstance(found[1], tuple):
            found = found[0] if path.startswith("api/") else found[1]
        if isinstance(found, tuple):
            return self._send(*found, b"", with_body)
        if path.startswith("api/") and rest[0] == "tree":
            return self._send_json([_entry(found, file) for file in _files(found)], with_body)
        if path.startswith("api/"):
            siblings = [{"rfilename": file.relative_to(found).as_posix()} for file in _files(found)]
            return self._send_json({"id": name, "sha": COMMIT, "private": False, "siblings": siblings}, with_body)
        file = found.joinpath(*rest[2:])  # resolve/<revision>/<file>
        if not file.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"", with_body)
        self._send(200, {"ETag": _etag(file), "X-Repo-Commit": COMMIT}, file.read_bytes(), with_body)

    def _send_json(self, value, with_body):
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode(), with_body)

    def _send(self, status, headers, body, with_body):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _files(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _etag(file):
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _entry(folder, file):
    return {
        "type": "file", "path": file.relative_to(folder).as_posix(), "oid": _etag(file), "size": file.stat().st_size,
    }  # fmt: skip
