"""What the running HAProxy tells on its statistics' address, which is this machine's alone."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import re
from dataclasses import dataclass

from ..config import reachable_host
from .boards import Fleet, split_address
from .haproxy import FINGERPRINT, STATISTICS_CSV

_SECONDS = 2.0
_LARGEST = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """The running balancer."""

    fingerprint: str | None
    """Of the configuration that it runs; None: it is not one of ours."""
    up: dict[str, bool]
    """Whether each board that it knows gets requests."""
    waiting: int
    """Requests in its queues."""


def read_balancer(fleet: Fleet) -> Balancer | None:
    """Return what HAProxy tells; None where nothing answers, or something else."""
    host, port = split_address(fleet.statistics)
    host = reachable_host(host)
    try:
        status, digest = _get(host, port, FINGERPRINT)
        _, table = _get(host, port, STATISTICS_CSV)
        up, waiting = _read_table(table)
    except (OSError, ValueError, http.client.HTTPException, csv.Error):
        return None
    ours = status == 200 and re.fullmatch(r"[0-9a-f]{16}", digest.strip())
    if not ours and not up:
        return None
    return Balancer(fingerprint=digest.strip() if ours else None, up=up, waiting=waiting)


def is_current(fleet: Fleet, path: str) -> bool:
    """Return whether the running HAProxy has read the configuration `path` as it is now."""
    balancer = read_balancer(fleet)
    if balancer is None or balancer.fingerprint is None:
        return False
    with open(path, encoding="utf-8", errors="replace") as stream:
        return balancer.fingerprint == fingerprint_of(stream.read())


def fingerprint_of(text: str) -> str | None:
    """Return the fingerprint in the text of a configuration."""
    match = re.search(rf"string ([0-9a-f]{{16}}) if {{ path {FINGERPRINT} }}", text)
    return match and match[1]


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    """Return status and body. HAProxy's statistics come in chunks, which the client of ours cannot read."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_LARGEST).decode("utf-8", "replace")


def _read_table(text: str) -> tuple[dict[str, bool], int]:
    """Return which boards are up, and how many requests wait, of HAProxy's CSV."""
    up: dict[str, bool] = {}
    waiting = 0
    for row in csv.DictReader(io.StringIO(text.removeprefix("# "))):
        backend, server = row.get("pxname") or "", row.get("svname") or ""
        if not backend.startswith("boards") or server == "FRONTEND":
            continue
        if server == "BACKEND":  # it counts those of its servers, too
            queue = row.get("qcur") or ""
            waiting += int(queue) if re.fullmatch(r"[0-9]{1,9}", queue) else 0
        else:
            up[server] = up.get(server, False) or (row.get("status") or "").startswith("UP")
    return up, waiting
