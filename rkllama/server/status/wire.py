"""What the server says of itself to balancers: readiness, and a drain that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...api.common import Fields
from ...config import LONGEST_WAIT, parse_duration
from ...types import Load, Unready


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCall:
    """A request to drain; `timeout` in seconds, None as the server has it. With `wait` a second line comes
    when nothing else is being answered.
    """

    timeout: float | None
    wait: bool


def decode_drain(body: Any) -> DrainCall:
    """`POST /api/rkllama/drain`."""
    fields = Fields(body)
    value = fields.raw("timeout")
    timeout: float | None = None
    if value is not None:
        try:
            timeout = parse_duration(value)
            if not 0 <= timeout <= LONGEST_WAIT:
                raise ValueError
        except (ValueError, OverflowError):
            expected = f'seconds, or a duration such as "5m", up to {LONGEST_WAIT / 3600:g}h'
            raise fields.fail("timeout", expected) from None
    return DrainCall(timeout=timeout, wait=fields.flag("wait") or False)


def drain_body(status: str, load: Load, left: float) -> dict[str, Any]:
    """Return how far a drain is: "draining", "drained" or "timed out", the requests, and the seconds that
    they still have.
    """
    return {
        "status": status,
        "running": load.running,
        "waiting": load.waiting,
        "timeout": round(left, 3),
    }


def ready_body(unready: Unready | None) -> dict[str, Any]:
    """`GET /ready`."""
    if unready is None:
        return {"status": "ready"}
    return {"status": "unready", "reason": unready.reason, "error": unready.text}
