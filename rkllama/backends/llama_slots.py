"""The slots of llama.cpp's server, each with a KV cache of its own: written to files, and read back.

A file that was written with another number of slots is refused, but one that is cut off ends the process:
what is read must have been found whole.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Ask = Callable[[str, object], dict[str, Any]]
"""Sends a POST and returns the JSON that answers it, an error under "error"."""


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


def listener(address: str, key: str) -> Ask:
    """Return what asks a listener on the loopback, such as "http://127.0.0.1:43673"."""

    def ask(path: str, body: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return {"error": {"message": str(error)}}
        finally:
            connection.close()
        return answer

    return ask
