"""A model's process, as the engine sees it: it is loaded, runs what comes over its lanes, and is ended.

`close()` alone frees the pipes and reaps the process; after a crash or a hang it is still due.
"""

from __future__ import annotations

import os

from ..backends.base import LoadedInfo, LoadSpec
from ..backends.kinds import kind_of
from ..errors import LoadFailed, WorkerCrashed, load_failure
from ..models.filename import least_size
from ..service import LOCAL, Caller
from . import frames
from .lane import CLOSE_GRACE, Lane, State
from .log import open_log
from .process import Process

DRAIN_GRACE = 1.0
"""Like CLOSE_GRACE, while an aborted run still goes on: a decode ends in time, a prefill may take minutes."""


class Worker(Lane):
    """One child process with one model; it is its own first lane. Not thread-safe but for `abort`, `retire`
    and `kill`.
    """

    def __init__(
        self,
        path: str,
        log_path: str,
        *,
        inherit: tuple[int, ...] = (),
        external: bool = False,
        lanes: int = 1,
    ) -> None:
        """Start the process; it inherits the descriptors `inherit`. Raises LoadFailed.

        `external`: the model is for the kind of backend that starts a program to run it. `lanes`: how many
        runs at a time there may be, if the backend can do that.
        """
        self.path = path
        kind = kind_of(path, external=external)
        try:
            log_path, log = open_log(log_path)
            process = Process(log_path, inherit=inherit, pairs=lanes if kind.parallel else 1)
        except OSError as error:
            raise LoadFailed(f"cannot start a process for {path}: {error}") from None
        super().__init__(process, process.pipes[0], kind, log)
        others = (
            Lane(process, pipes, kind, log, index)
            for index, pipes in enumerate(process.pipes[1:], start=1)
        )
        self.lanes: tuple[Lane, ...] = (self, *others)
        """Those that can be used; once it is loaded, as many as the backend can run at a time."""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended, or is ending, as far as is known without looking."""
        return any(lane.state is State.DEAD for lane in self.lanes)

    @property
    def alive(self) -> bool:
        """Return whether the process still runs; this also reaps a dead one."""
        return not self.dead and self._process.alive

    @property
    def retired(self) -> bool:
        """Whether it was told to end, so that its end is expected."""
        return self._process.retired

    def load(self, spec: LoadSpec, *, timeout: float, caller: Caller = LOCAL) -> LoadedInfo:
        """Load the model, to the end if its caller hangs up. Raises LoadFailed, WorkerHung; the process has
        ended then.
        """
        try:
            payload = self._call(
                frames.LOAD,
                frames.encode(spec),
                lambda: timeout,
                caller.staying(),
                setting="RKLLAMA_LOAD_TIMEOUT",
            )
            loaded = self._decoded(frames.decode_loaded, payload)
        except WorkerCrashed as error:
            self.close()
            raise load_failure(self._cause)(
                f"{os.path.basename(self.path)} could not be loaded: {error.message}",
                hint=_with_size(self.path, error.hint),
                log=error.log,
            ) from None
        except LoadFailed as error:
            self.kill("it could not load the model")
            self.close()
            error.hint = _with_size(self.path, error.hint)
            raise
        except BaseException:
            self.kill("the load was cancelled")
            self.close()
            raise
        self._log.mark_loaded()
        self.lanes = self.lanes[: max(1, loaded.parallel)]
        for lane in self.lanes:
            lane._enter(State.READY)
        return loaded

    def settle_all(self, caller: Caller = LOCAL) -> None:
        """Wait until no run goes on that its reader gave up; see `settle`."""
        for lane in self.lanes:
            lane.settle(caller)

    def retire(self) -> None:
        """Abort the running answers and every later one; safe from any thread."""
        self._process.retired = True
        for lane in self.lanes:
            lane.abort()

    def kill(self, reason: str, *, expected: bool = False) -> None:
        """End the process at once; safe from any thread. Its readers get WorkerCrashed with `reason`."""
        self._process.retired |= expected
        self._process.kill(reason)

    def close(self) -> None:
        """Free the model and end the process, by force when it takes too long."""
        if self._process.closed:
            return
        states = {lane.state for lane in self.lanes}
        if self._process.kill_reason is None and states <= {State.READY, State.DRAINING}:
            self._send(frames.CLOSE, 0)
        else:
            self.kill("closed")
        patience = DRAIN_GRACE if State.DRAINING in states else CLOSE_GRACE
        self._process.end(patience, self._process.pipes)
        for lane in self.lanes:
            lane._enter(State.DEAD)
        self._process.close()


def _with_size(path: str, hint: str | None) -> str | None:
    """Return the hint of a failed load, and that the file is shorter than its name promises where it is."""
    try:
        size, least = os.stat(path).st_size, least_size(os.path.basename(path))
    except OSError:
        return hint
    if least is None or size >= least:
        return hint
    short = f"Its file has {size / 1e9:.1f} GB, less than its name promises: it may be a part of the model."
    return f"{short} {hint or ''}".rstrip()
