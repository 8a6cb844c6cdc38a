"""A Hugging Face Hub on the loopback, with a storage server on another origin and faults on demand.

The Hub answers on 127.0.0.1; large files (`lfs=True`) are redirected to localhost, on another port:
another origin, as the real one's storage is. Both note every request. Faults are queued per file and
used up one per connection.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a1" * 20


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with one download of a file from the storage server."""

    status: int = 0
    """Answer with this status instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers to add, or to replace."""
    drop_after: int | None = None
    """Close the connection after so many bytes of the body."""
    ignore_range: bool = False
    content: bytes | None = None
    """Send these bytes instead."""
    hold_after: int | None = None
    """After so many bytes, wait until `released`."""
    released: threading.Event = field(default_factory=threading.Event)


@dataclass(kw_only=True)
class HubFile:
    content: bytes
    lfs: bool = True
    mark: str | None = None
    """What a mirror sends as ETag, in the place of the hash."""
    announced: int | None = None
    """A size to announce instead of the real one."""

    @property
    def etag(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(kw_only=True)
class HubRepo:
    """Files at the one commit `commit`, which every name in `revisions` leads to."""

    files: dict[str, HubFile]
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    held: threading.Event | None = None
    """Answer questions about the repository only when this is set."""
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    downloads: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it came in; header names in lower case."""

    origin: str
    method: str
    path: str
    headers: Mapping[str, str]


class LoopbackHub:
    """Use as a context manager; `endpoint` is the Hub's address, `storage` the other origin's."""

    def __init__(self, token: str = "hf_good") -> None:
        self.repos: dict[str, HubRepo] = {}
        self.faults: dict[str, deque[Fault]] = {}
        self.seen: list[Seen] = []
        self.token = token
        self.unchanged = 0
        """Searches that were answered with 304."""
        self.api_fault: tuple[int, dict[str, str]] | None = None
        """Answer every request to the Hub itself with this status and these headers."""
        self.search_faults: dict[str, tuple[int, bytes]] = {}
        """Status and body for a search, by its words and filters: "qwen3[rkllm]"."""
        self.serve_api = True
        """Whether there are answers about repositories, and not only files."""
        self._lock = threading.Lock()
        self._used: list[Fault] = []
        self._hub = _Server("127.0.0.1", self, _HubHandler)
        self._storage = _Server("localhost", self, _StorageHandler)

    @property
    def endpoint(self) -> str:
        return self._hub.address

    @property
    def storage(self) -> str:
        return self._storage.address

    def __enter__(self) -> LoopbackHub:
        self._hub.begin()
        self._storage.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fault in self._used:
            fault.released.set()
        for repo in self.repos.values():
            if repo.held:
                repo.held.set()
        self._hub.end()
        self._storage.end()

    def add(self, repo: str, files: Mapping[str, bytes], **values: Any) -> HubRepo:
        """A repository; what ends in .rkllm or .gguf is stored in LFS."""
        self.repos[repo] = HubRepo(
            files={
                path: HubFile(content=content, lfs=path.endswith((".rkllm", ".gguf")))
                for path, content in files.items()
            },
            **values,
        )
        return self.repos[repo]

    def fail(self, file: str, *faults: Fault) -> None:
        """The next downloads of a file of this name go wrong, in this order."""
        self.faults.setdefault(file, deque()).extend(faults)

    def next_fault(self, file: str) -> Fault:
        with self._lock:
            queue = self.faults.get(file)
            self._used.append(queue.popleft() if queue else Fault())
            return self._used[-1]

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)

    def downloads(self, file: str) -> list[Seen]:
        """The requests for a file's bytes at the storage server, in order."""
        return [s for s in self.seen if s.origin == self.storage and s.path.endswith(f"/{file}")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, hub: LoopbackHub, handler: type[_Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.hub = hub
        self.address = f"http://{host}:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None: ...

    def note(self) -> LoopbackHub:
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(
            origin=self.server.address, method=self.command, path=self.path, headers=headers
        )
        self.server.hub.note(seen)
        return self.server.hub

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str, message: str = "no") -> None:
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": message})


class _HubHandler(_Handler):
    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def route(self) -> None:
        hub = self.note()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hub.api_fault:
            self.answer(hub.api_fault[0], hub.api_fault[1], b"out of order")
            return
        path = urlsplit(self.path).path
        if path.startswith("/api/") and not hub.serve_api:
            self.fail(404, "")
            return
        if path == "/api/models":
            self.search(parse_qs(urlsplit(self.path).query))
            return
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, path):
                self.in_repo(match, body, handle)
                return
        self.fail(404, "")

    def search(self, asked: Mapping[str, list[str]]) -> None:
        """Every word must stand in the repository's id, and every filter among its tags."""
        hub = self.server.hub
        words = " ".join(asked.get("search", [])).lower().split()
        filters = asked.get("filter", [])
        authorization = self.headers.get("Authorization")
        if authorization and authorization != f"Bearer {hub.token}":
            self.fail(401, "", "Invalid credentials in Authorization header")
            return
        key = f"{' '.join(words)}[{','.join(filters)}]"
        if key in hub.search_faults:
            status, body = hub.search_faults[key]
            self.answer(status, {"Content-Type": "application/json"}, body)
            return
        found = [
            _entry(name, repo, asked.get("expand", []))
            for name, repo in hub.repos.items()
            if all(word in name.lower() for word in words)
            and all(tag in (*repo.tags, *_told(repo)) for tag in filters)
            and (not repo.private or authorization)
        ]
        found.sort(key=lambda entry: -int(entry.get("downloads", 0)))
        rows = found[: int(asked.get("limit", ["1000"])[0])]
        mark = f'"{hashlib.sha1(json.dumps(rows).encode()).hexdigest()}"'
        if self.headers.get("If-None-Match") == mark:
            hub.unchanged += 1
            self.answer(304, {"ETag": mark})
            return
        self.answer(
            200, {"Content-Type": "application/json", "ETag": mark}, json.dumps(rows).encode()
        )

    def in_repo(
        self,
        match: re.Match[str],
        body: bytes,
        handle: Callable[[_HubHandler, str, HubRepo, str, bytes], None],
    ) -> None:
        hub = self.server.hub
        parts = match.groupdict()
        repo = hub.repos.get(parts["repo"])
        authorization = self.headers.get("Authorization")
        known = authorization == f"Bearer {hub.token}"
        if authorization and not known:
            self.fail(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not known):
            self.fail(404 if known else 401, "RepoNotFound", "Repository not found")
        elif unquote(parts.get("rev") or "main") not in (*repo.revisions, repo.commit):
            self.fail(404, "RevisionNotFound", "Invalid rev id")
        else:
            handle(self, parts["repo"], repo, unquote(parts.get("path") or ""), body)

    def info(self, name: str, repo: HubRepo, path: str, body: bytes) -> None:
        if repo.held:
            repo.held.wait(30)
        siblings = [{"rfilename": p, "size": len(f.content)} for p, f in repo.files.items()]
        self.send_object(
            {
                "id": name,
                "sha": repo.commit,
                "siblings": siblings,
                "tags": [],
                "cardData": repo.card,
                "gated": "auto" if repo.gated else False,
            }
        )

    def paths_info(self, name: str, repo: HubRepo, path: str, body: bytes) -> None:
        wanted = parse_qs(body.decode()).get("paths", [])
        self.send_object([_described(p, f) for p, f in repo.files.items() if p in wanted])

    def tree(self, name: str, repo: HubRepo, path: str, body: bytes) -> None:
        self.send_object([_described(p, f) for p, f in repo.files.items()])

    def send_object(self, value: object) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def resolve(self, name: str, repo: HubRepo, path: str, body: bytes) -> None:
        authorized = self.headers.get("Authorization")
        if repo.gated and not authorized:
            self.fail(401, "GatedRepo", "Access to this model is restricted")
            return
        file = repo.files.get(path)
        if file is None:
            self.fail(404, "EntryNotFound", "Entry not found")
            return
        mark = f'"{file.etag}"' if file.mark is None else file.mark
        headers = {"X-Repo-Commit": repo.commit, "ETag": mark}
        if not file.lfs:
            self.answer(200, headers, file.content)
            return
        headers["X-Linked-Etag"] = mark
        headers["X-Linked-Size"] = str(file.announced or len(file.content))
        headers["Location"] = f"{self.server.hub.storage}/{name}/{path}"
        self.answer(302, headers)


_ROUTES: tuple[tuple[str, Any], ...] = (
    (r"/api/models/(?P<repo>[^/]+/[^/]+)", _HubHandler.info),
    (r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<rev>[^/]+)", _HubHandler.info),
    (r"/api/models/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<rev>[^/]+)", _HubHandler.paths_info),
    (r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/]+)", _HubHandler.tree),
    (r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", _HubHandler.resolve),
)


def _told(repo: HubRepo) -> tuple[str, ...]:
    """The tag that the real Hub adds by itself, for the format that it knows."""
    return ("gguf",) if any(path.endswith(".gguf") for path in repo.files) else ()


def _entry(name: str, repo: HubRepo, expand: list[str]) -> dict[str, Any]:
    """A repository in the answer to a search: with `expand` only what was asked for."""
    known = {
        "siblings": [{"rfilename": path} for path in repo.files],
        "downloads": repo.downloads,
        "likes": 0,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "tags": [*repo.tags, *_told(repo)],
        "gated": "auto" if repo.gated else False,
    }
    return {"_id": "0" * 24, "id": name, **{key: known[key] for key in expand if key in known}}


def _described(path: str, file: HubFile) -> dict[str, Any]:
    lfs = {"oid": file.etag, "size": len(file.content), "pointerSize": 130}
    entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.etag[:40]}
    return {**entry, "lfs": lfs} if file.lfs else entry


class _StorageHandler(_Handler):
    """Bytes by range; what is asked for must exist, and the queued faults are applied."""

    def do_GET(self) -> None:
        hub = self.note()
        user, name, path = unquote(self.path).lstrip("/").split("/", 2)
        content = hub.repos[f"{user}/{name}"].files[path].content
        fault = hub.next_fault(path.rpartition("/")[2])
        content = content if fault.content is None else fault.content
        if fault.status:
            self.answer(fault.status, fault.headers)
            return
        first = self.first_byte() if not fault.ignore_range else 0
        if first and first >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_part(content, first, fault)

    def first_byte(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(match[1]) if match else 0

    def send_part(self, content: bytes, first: int, fault: Fault) -> None:
        body = content[first:]
        headers = {"Content-Length": str(len(body))}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        headers = {**headers, **fault.headers}
        self.send_response(206 if "Content-Range" in headers else 200)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if fault.hold_after is not None:
            self.wfile.write(body[: fault.hold_after])
            fault.released.wait(30)
            body = body[fault.hold_after :]
        if fault.drop_after is not None:
            self.wfile.write(body[: fault.drop_after])
            self.close_connection = True
            return
        self.wfile.write(body)
