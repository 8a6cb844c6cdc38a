"""`pull`: a model from the Hub into the models directory, whole and verified or not at all.

api.py asks and connects, placement.py says where the file goes, partial.py keeps what has come so far. Here
is the order of things, and what happens when a connection breaks. Nothing from a repository is
executed, and of its texts only the ones named in sidecars.py are fetched.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from ..errors import DiskFull, HubUnreachable, IntegrityError, PullError
from ..files import free_space, is_full, make_directory
from ..models.filename import parse_platform
from ..models.reference import Reference, parse_reference
from ..models.vision.choice import find_encoder
from ..types import PullProgress
from .api import DEFAULT_REVISION, Hub, RemoteFile, Repository, Response, lost_connection
from .find import Library, file_in, find, settled
from .offers import Board
from .partial import Part, unfinished
from .placement import Place, begun_under, is_claimed
from .reading import Reading
from .sidecars import fetch_sidecars, has_template, told_toolkit
from .wanted import Wanted, parse_wanted

RETRIES = 5
"""Connections in a row that may bring nothing before the download is given up."""
LONGEST_PAUSE = 8.0
REPORT_EVERY = 0.1
"""Seconds between two reports of progress."""
LOOK_EVERY = 0.5
"""Seconds between two looks at a download that another process is doing."""

_log = logging.getLogger(__name__)
Report = Callable[..., PullProgress]


class _LostError(Exception):
    """The connection ended too early; `pause` is what the server asked to wait, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def pull(
    reference: str,
    models: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    backoff: float = 1.0,
    unverified: bool = False,
    board: Board | None = None,
    cache: str | None = None,
) -> Generator[PullProgress, None, None]:
    """Fetch `[hf/]USER/REPO/FILE[/NAME][@REVISION]` into the directory `models`, which is created if needed.

    For a `board` also what a name such as `qwen3:4b` means on it, and the best file of a repository;
    `cache` is a directory for the Hub's answers to searches.

    `endpoint` and `token` default to HF_ENDPOINT and to what huggingface_hub finds (HF_TOKEN, a
    login); `backoff` is the first pause in seconds after a lost connection. The last step has the status
    "done". Closing the iterator, or killing the process, leaves a part that the next pull continues.
    While another process fetches the same file, its progress is reported, and its work taken over
    should it die. With `unverified` a file is also taken where the Hub tells no hash of it. Raises
    PullError and its kin, InvalidRequest, AmbiguousName.
    """
    hub = Hub(endpoint, token)
    wanted = _parsed(reference, board, hub.endpoint)
    target = wanted.reference
    if target is None:
        assert board is not None
        target = yield from _searched(hub, wanted, board, Library(cache=cache, models=models))
    yield PullProgress(status="resolving", file=target.file or target.repo)
    repository = _look_up(hub, target)
    file, note = file_in(repository, replace(wanted, reference=target), board)
    if note is not None:
        yield PullProgress(status="resolving", file=file, note=note)
    remote = hub.file(repository, file)
    _check_verifiable(hub, remote, unverified)
    toolkit = None
    report = partial(PullProgress, file=remote.name, total=remote.size, digest=remote.sha256)
    with local_errors(models):
        models = os.path.realpath(models)
        make_directory(models)
        place = Place(models, remote)
        path = yield from _find(place, report)
        if path is None:
            path = _claimed(place, target)
            try:
                for part in _turns(place, path):
                    if part is None:
                        yield report(status="downloading", completed=unfinished(path))
                        continue
                    yield from download(hub, remote, part, report, backoff)
                    fetch_sidecars(hub, repository, remote, os.path.dirname(path))
                    toolkit = told_toolkit(hub, repository, remote)
                    part.finish()
                    place.remember(path)
            finally:
                place.give_up(path)
        elif is_claimed(path) and not has_template(os.path.dirname(path)):
            fetch_sidecars(hub, repository, remote, os.path.dirname(path))
        if is_claimed(path) and (encoder := _encoder_of(hub, repository, remote)) is not None:
            _check_verifiable(hub, encoder, unverified)
            yield from _bring_encoder(hub, Place(models, encoder), os.path.dirname(path), backoff)
        name = place.name(path)
    yield report(status="done", completed=remote.size, name=name, toolkit=toolkit)


def _parsed(reference: str, board: Board | None, endpoint: str) -> Wanted:
    """Return what is wanted; without a board only what names a repository."""
    if board is not None:
        return parse_wanted(reference, endpoint)
    target = parse_reference(reference, endpoint)
    return Wanted(text=reference, reading=Reading(), reference=target, name=target.name)


def _searched(
    hub: Hub, wanted: Wanted, board: Board, where: Library
) -> Generator[PullProgress, None, Reference]:
    """Return the reference to the file that a name means: one that was begun, or the best to be had."""
    name = wanted.name or wanted.text
    begun = begun_under(where.models, name) if where.models else None
    if begun is not None:
        return begun
    plan = yield from find(hub, wanted, board, where)
    chosen = settled(hub, wanted, plan, board, where)
    note = f"chose {chosen.reference}: {plan.choice.reason}"
    yield PullProgress(status="resolving", file=wanted.text, note=note)
    return Reference(repo=chosen.repo, file=chosen.file, name=name)


def _claimed(place: Place, target: Reference) -> str:
    """Return the path for the file; not every file system has names like qwen3:4b."""
    revision = target.revision or DEFAULT_REVISION
    try:
        return place.claim(revision, target.name)
    except OSError as error:
        if error.errno != errno.EINVAL or not target.name:
            raise
        return place.claim(revision, target.name.replace(":", "-"))


def _look_up(hub: Hub, target: Reference) -> Repository:
    """Return the repository; without its list of files where that is not needed and a mirror has none."""
    try:
        return hub.repository(target.repo, target.revision)
    except PullError as error:
        if target.file is None or type(error) is not PullError:
            raise
        return Repository(id=target.repo, revision=target.revision or DEFAULT_REVISION)


def _check_verifiable(hub: Hub, remote: RemoteFile, unverified: bool) -> None:
    if remote.has_hash:
        return
    if not unverified:
        raise PullError(
            f"{remote.name} could not be verified: {hub.endpoint} tells no hash of it",
            hint="Check HF_ENDPOINT. `rkllama pull --unverified` takes the file as it comes; in a request "
            "that is `insecure`.",
        )
    _log.warning("%s is taken unverified: %s tells no hash of it", remote.name, hub.endpoint)


def _find(place: Place, report: Report) -> Generator[PullProgress, None, str | None]:
    """Return the path of the wanted file if it is already on disk, however it got there; else None."""
    for path in place.namesakes():
        if place.holds(path):
            return path
        check = place.check(path)
        for count in _paced(check):
            yield report(status="verifying", completed=count)
        if check.matches:
            place.remember(path)
            return path
    return None


# --- The encoder -------------------------------------------------------------------------------


def _encoder_of(hub: Hub, repository: Repository, model: RemoteFile) -> RemoteFile | None:
    """Return the image encoder of a model, if its repository has one."""
    platform = parse_platform(model.path) or parse_platform(repository.id)
    path = find_encoder(model.path, repository.files, platform)
    return None if path is None else hub.file(repository, path)


def _bring_encoder(
    hub: Hub, place: Place, folder: str, backoff: float
) -> Generator[PullProgress, None, None]:
    """Put an encoder into its model's folder; another file of its name stays as it is."""
    remote, path = place.remote, os.path.join(folder, place.remote.name)
    report = partial(PullProgress, file=remote.name, total=remote.size, digest=remote.sha256)
    if os.path.lexists(path):
        if not place.holds(path):
            check = place.check(path)
            for count in _paced(check):
                yield report(status="verifying", completed=count)
            if check.matches:
                place.remember(path)
            else:
                _log.warning("%s is another file than %s's: it stays", path, remote.repo)
        return
    for part in _turns(place, path):
        if part is None:
            yield report(status="downloading", completed=unfinished(path))
            continue
        yield from download(hub, remote, part, report, backoff)
        part.finish()
        place.remember(path)


# --- The bytes ---------------------------------------------------------------------------------


def _turns(place: Place, path: str) -> Iterator[Part | None]:
    """Yield the part when it is this process's turn to write it, and None now and then until then.

    Ends without a part when the other process has completed the file.
    """
    while not place.holds(path):
        part = Part.acquire(path, place.remote.size, place.remote.etag)
        if part is None:
            yield None
            time.sleep(LOOK_EVERY)
            continue
        with part:
            if place.holds(path):
                part.discard()
            else:
                yield part
        return


class Source(Protocol):
    """Where a file comes from."""

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Response]:
        """Return the bytes from `offset` on; see Hub.open."""
        ...


def download(
    source: Source, remote: RemoteFile, part: Part, report: Report, backoff: float
) -> Iterator[PullProgress]:
    """Complete the part and verify it. Raises IntegrityError, HubUnreachable, DiskFull, …"""
    for count in _paced(part.resume()):
        yield report(status="verifying", completed=count)
    part.reserve()
    while True:
        yield report(status="downloading", completed=part.size, resumed=part.resumed)
        for count in _paced(_receive_all(source, remote, part, backoff)):
            yield report(status="downloading", completed=count, resumed=part.resumed)
        if remote.has_hash:
            yield report(status="verifying", completed=part.size, resumed=part.resumed)
        if part.matches():
            return
        if not part.resumed:
            break
        _log.warning("%s: the earlier partial download is damaged; starting again", part.path)
        part.reset()
    part.discard()
    raise IntegrityError(
        f"{remote.name} is damaged: its hash is not {remote.etag}, as it should be",
        hint="Run the command again; if it happens again, the file where it comes from is at fault.",
    )


def _receive_all(source: Source, remote: RemoteFile, part: Part, backoff: float) -> Iterator[int]:
    """Fill the part over as many connections as it takes, yielding its size."""
    failures = 0
    while part.size < remote.size:
        before, pause = part.size, 0.0
        reason = "the connection ended early"
        try:
            yield from _receive(source, remote, part)
        except _LostError as error:
            reason, pause = str(error), error.pause
        except lost_connection() as error:
            reason = str(error) or type(error).__name__
        if part.size == remote.size:
            return
        failures = 1 if part.size > before else failures + 1
        if failures > RETRIES:
            raise HubUnreachable(
                f"{remote.name} cannot be downloaded, {RETRIES} attempts failed: {reason}",
                hint=f"Run the command again to resume after {part.size / 1e6:.0f} MB.",
            )
        _log.info("%s: %s; trying again", remote.name, reason)
        time.sleep(max(pause, min(backoff * 2 ** (failures - 1), LONGEST_PAUSE)))


def _receive(source: Source, remote: RemoteFile, part: Part) -> Iterator[int]:
    """Fill the part from one connection, until that ends."""
    with source.open(remote, part.size) as response:
        if response.status_code == 416:
            part.reset()
        skip = part.size - _first_byte(response, remote, part.size)
        for chunk in response.iter_raw():
            if skip:
                skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
            part.write(chunk[: remote.size - part.size])
            yield part.size


def _first_byte(response: Response, remote: RemoteFile, offset: int) -> int:
    """Return where in the file the response's body begins: at `offset`, or at 0 when Range was ignored."""
    status, headers = response.status_code, response.headers
    if status == 200:
        _check_size(remote, headers.get("content-length"))
        return 0
    if status == 206:
        first, total = _content_range(headers.get("content-range", ""))
        _check_size(remote, total)
        if first != offset:
            raise _LostError(f"byte {offset} was requested, but byte {first} was sent")
        return offset
    if status in (401, 403, 404, 408, 410, 416, 425, 429) or status >= 500:
        # A storage address is signed and expires; the next try gets a new one from the Hub.
        raise _LostError(f"status {status}", _retry_after(headers.get("retry-after", "")))
    raise PullError(f"{remote.name} cannot be downloaded: status {status}")


def _content_range(value: str) -> tuple[int, str | None]:
    match = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", value)
    if not match:
        raise _LostError(f"a part of the file was sent with the range '{value}'")
    return int(match[1]), None if match[2] == "*" else match[2]


def _check_size(remote: RemoteFile, size: str | None) -> None:
    if size is not None and size != str(remote.size):
        raise IntegrityError(
            f"{remote.name} has {size} bytes, but the Hub announced {remote.size}",
            hint="Try again; a proxy may be answering in place of the Hub.",
        )


def _retry_after(value: str) -> float:
    return min(float(value), 60.0) if re.fullmatch(r"\d{1,9}", value) else 0.0


def _paced(counts: Iterable[int]) -> Iterator[int]:
    """Yield the latest count, every REPORT_EVERY seconds."""
    due = time.monotonic() + REPORT_EVERY
    for count in counts:
        if (now := time.monotonic()) >= due:
            due = now + REPORT_EVERY
            yield count


@contextmanager
def local_errors(models: str) -> Iterator[None]:
    """Turn errors of the file system into a PullError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            free = free_space(models)
            raise DiskFull(f"the disk of {models} is full", needed=1, available=free) from error
        raise PullError(
            f"{error.filename or models} cannot be used: {error.strerror or error}",
            hint=f"Check that this user may write to {models}, or set RKLLAMA_MODELS.",
        ) from error
