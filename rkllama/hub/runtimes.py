"""Fetching releases of librkllmrt, and librknnrt, from the vendor's repository: resumed, and verified by
the git blob id.

A release gets its name only when its bytes are the published ones; the vendor's licence lies beside it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial

from ..errors import ConfigError, HubNotFound, HubUnreachable, PullError
from ..files import make_directory, write_file
from ..rkllm.releases import LICENCE, Published
from ..types import PullProgress
from .api import (
    METADATA_TIMEOUT,
    STALL_TIMEOUT,
    RemoteFile,
    Response,
    Site,
    is_offline,
    is_web_address,
    lost_connection,
)
from .partial import FileCheck, Part
from .pull import download, local_errors

_LARGEST = 256 << 20
"""Bytes that a release may have; the library is a small part of this."""
_LICENCE_LIMIT = 1 << 20
_OTHERWISE = (
    "Set RKLLAMA_RUNTIME_URL to a mirror, or copy the file here and run `rkllama runtime add FILE`."
)


class RuntimeSite(Site):
    """The vendor's repository, or a mirror with the same commits and paths below its address."""

    def __init__(self, base: str, otherwise: str = _OTHERWISE) -> None:
        """`otherwise` is what to do where nothing can be fetched."""
        if not is_web_address(base):
            raise ConfigError(
                f"RKLLAMA_RUNTIME_URL cannot be '{base}'", hint="Write it like https://HOST/PATH."
            )
        self.endpoint = base.rstrip("/")
        self._otherwise = otherwise

    def announce(self, release: str, published: Published, machine: str) -> RemoteFile:
        """Return a release's file as the site announces it. Raises HubNotFound, HubUnreachable, PullError."""
        path = published.path(machine)
        with self._asked(f"{published.commit}/{path}") as response:
            size = response.headers.get("content-length", "")
            if not size.isascii() or not size.isdigit() or not 0 < int(size) <= _LARGEST:
                raise PullError(
                    f"{self.endpoint} tells no usable size of {published.label(release)}",
                    hint=self._otherwise,
                )
        return RemoteFile(
            repo=published.label(release),
            path=path,
            revision=published.commit,
            commit=published.commit,
            size=int(size),
            etag=published.blobs[machine],
        )

    @contextmanager
    def open(self, file: RemoteFile, offset: int) -> Iterator[Response]:
        """The bytes of a file from `offset` on; see Hub.open."""
        url = f"{self.endpoint}/{file.commit}/{file.path}"
        extra = {"range": f"bytes={offset}-"} if offset else {}
        with self._get(url, extra, STALL_TIMEOUT) as (_, response):
            yield response

    def licence(self, published: Published) -> bytes | None:
        """Return the vendor's licence at a commit; None where the site has none."""
        content = b""
        try:
            with self._asked(f"{published.commit}/{LICENCE}") as response:
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > _LICENCE_LIMIT:
                        return None
        except (PullError, lost_connection()):
            return None
        return content

    @contextmanager
    def _asked(self, path: str) -> Iterator[Response]:
        """An answer of status 200; every other outcome is an error that says what to do."""
        if is_offline():
            raise HubUnreachable(
                "HF_HUB_OFFLINE is set: nothing can be fetched",
                hint="Unset it to go online, or run `rkllama runtime add FILE`.",
            )
        url = f"{self.endpoint}/{path}"
        try:
            with self._get(url, {}, METADATA_TIMEOUT) as (_, response):
                self._check(response.status_code, url)
                yield response
        except lost_connection() as error:
            raise HubUnreachable(
                f"{self.endpoint} cannot be reached: {error or type(error).__name__}",
                hint=f"Check the network connection and the proxy settings. {self._otherwise}",
            ) from error

    def _check(self, status: int, url: str) -> None:
        if status in (404, 410):
            raise HubNotFound(f"{url} is not there: it may have moved", hint=self._otherwise)
        if status == 429 or status >= 500:
            raise HubUnreachable(
                f"{url} is not served at the moment: status {status}", hint="Try again later."
            )
        if status != 200:
            raise PullError(f"{url} cannot be fetched: status {status}", hint=self._otherwise)


def install(
    folder: str,
    release: str,
    published: Published,
    machine: str,
    *,
    base: str,
    backoff: float = 1.0,
) -> Generator[PullProgress, None, None]:
    """Fetch a release for `machine` into `folder`, which is made if needed. librknnrt has no release.

    An earlier try is resumed. What is there already is verified, and fetched again where it is another
    file. Raises PullError and its kin.
    """
    path, label = os.path.join(folder, published.file), published.label(release)
    by_hand = f"Set RKLLAMA_RUNTIME_URL to a mirror, or copy the file to {path}."
    site = RuntimeSite(base, _OTHERWISE if release else by_hand)
    report = partial(PullProgress, file=label)
    yield report(status="resolving")
    with local_errors(folder):
        if not _is_published(path, published.blobs[machine]):
            remote = site.announce(release, published, machine)
            make_directory(folder)
            part = Part.acquire(path, remote.size, remote.etag)
            if part is None:
                raise PullError(f"another process is fetching {label}", hint="Wait for it to end.")
            with part:
                yield from download(site, remote, part, partial(report, total=remote.size), backoff)
                licence = site.licence(published)
                if licence is not None:
                    write_file(os.path.join(folder, LICENCE), licence)
                part.finish()
    yield report(status="done", completed=os.path.getsize(path), name=release)


def _is_published(path: str, blob: str) -> bool:
    """Return whether the file at `path` is there and has the blob id."""
    with contextlib.suppress(OSError):
        return FileCheck(path, blob).run()
    return False
