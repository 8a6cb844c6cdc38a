"""llama.cpp's server over HTTP, whether it listens in this process or in one of its own: requests, runs that
are streamed and can be broken off, and its slots, each with a KV cache of its own, in files.

A slot's file that was written with another number of slots is refused, but one that is cut off ends the
process: what is read must have been found whole.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .llama_wire import Completion, is_native, native_chunk

Ask = Callable[[str, object], dict[str, Any]]
"""Sends a POST and returns the JSON that answers it, an error under "error"."""


class Client:
    """Asks a server. Each request is one thread's; `hang_up` is called from others."""

    def __init__(self, connect: Callable[[], socket.socket], key: str) -> None:
        self._connect = connect
        self._key = key
        self._sockets: dict[int, socket.socket] = {}
        """Of the requests that may be broken off, by their slots."""

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        aborted: Callable[[], bool] | None = None,
        slot: int = 0,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and hold the beginning of its response. Raises OSError, HTTPException.

        With `aborted` it is the one of a slot that `hang_up` breaks off; that tells of one that came before.
        """
        headers = {"Authorization": f"Bearer {self._key}", "Connection": "close"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self._connect()
        if aborted is not None:
            self._sockets[slot] = connection.sock
        try:
            if aborted is not None and aborted():
                raise ConnectionAbortedError
            connection.request(method, path, data, headers)
            with connection.getresponse() as response:
                yield response
        finally:
            if aborted is not None:
                self._sockets.pop(slot, None)
            connection.close()

    def hang_up(self, slot: int) -> None:
        """Break a slot's request off that may be; without one, do nothing. For other threads."""
        running = self._sockets.get(slot)
        if running is not None:
            with contextlib.suppress(OSError):
                running.shutdown(socket.SHUT_RDWR)

    def fetch(self, path: str, body: object = None) -> dict[str, Any]:
        """Return the JSON that answers a GET, with a `body` a POST. Raises OSError, HTTPException."""
        with self.request("GET" if body is None else "POST", path, body) as response:
            return read_json(response)

    def ask(self, path: str, body: object = None) -> dict[str, Any]:
        """Like `fetch`; also what went wrong is in the JSON, under "error"."""
        try:
            return self.fetch(path, body)
        except (OSError, http.client.HTTPException) as error:
            return {"error": {"message": str(error)}}

    def run(
        self,
        request: dict[str, Any],
        completion: Completion,
        is_over: Callable[[], bool],
        aborted: Callable[[], bool],
        slot: int,
    ) -> None:
        """Let the server run a request until it ends or `is_over`, which is asked at each chunk. Raises
        OSError, HTTPException, ValueError where the connection breaks, also by `hang_up`.
        """
        native = is_native(request)
        path = "/completion" if native else "/v1/completions"
        with self.request("POST", path, request, aborted, slot) as response:
            if response.status != http.client.OK:
                completion.take(read_json(response))
                return
            for chunk in events(response):
                completion.take(native_chunk(chunk) if native else chunk)
                if is_over() or completion.repeats:
                    return


def listener(address: str, key: str) -> Client:
    """Return what asks a listener on the loopback, such as "http://127.0.0.1:43673"."""
    host, _, port = address.removeprefix("http://").partition(":")
    return Client(lambda: socket.create_connection((host, int(port))), key)


def read_json(response: http.client.HTTPResponse) -> dict[str, Any]:
    """Return a response's JSON; an error has the key "error", also where it came without JSON."""
    data = response.read()
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and ("error" in answer or response.status == http.client.OK):
        return answer
    text = data[:200].decode("utf-8", "replace").strip()
    return {"error": {"message": f"HTTP status {response.status} {text}".strip()}}


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON of the server-sent events of a response, as they come."""
    rest = b""
    while data := response.read1(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            kind, _, content = line.strip().partition(b":")
            if kind == b"data" and content.strip() != b"[DONE]":
                yield json.loads(content)
            elif kind == b"error":  # builds before 2026
                yield {"error": json.loads(content)}


# --- Slots -------------------------------------------------------------------------------------


class Slots:
    """The slots of a server that was started with the directory of their files."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def save(self, path: str, slot: int) -> int | None:
        """Write a slot that is idle, or will be; return the tokens that it holds, None where it has none."""
        answer = self._act(slot, "save", path)
        tokens: int = answer.get("n_saved", 0)
        return tokens or None

    def restore(self, path: str, tokens: int, slot: int) -> bool:
        """Read a file of so many tokens into a slot; return whether they are there. If not, it is empty."""
        return bool(self._act(slot, "restore", path).get("n_restored") == tokens)

    def _act(self, slot: int, action: str, path: str) -> dict[str, Any]:
        """The server knows the directory, and takes nothing but a file's name."""
        answer = self._ask(f"/slots/{slot}?action={action}", {"filename": os.path.basename(path)})
        if "error" in answer:  # into the model's log
            sys.stderr.write(f"{action} of {path}: {answer['error'].get('message')}\n")
        return answer
