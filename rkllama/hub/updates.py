"""Whether the Hub has another file by now than the one that was pulled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..models.digests import DigestCache
from ..models.filename import strip_extension
from ..models.reference import is_repository
from ..models.scan import scan
from .api import DEFAULT_REVISION, Hub, RemoteFile, Repository
from .partial import FileCheck
from .placement import read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A model that a pull brought; `sha256` is None where it is not known."""

    name: str
    path: str
    size: int
    repo: str
    file: str
    revision: str
    sha256: str | None = None

    @property
    def reference(self) -> str:
        """What `pull` takes to bring it again to the same place."""
        folder = os.path.basename(os.path.dirname(self.path))
        plain = strip_extension(self.file.rpartition("/")[2])
        name = "" if folder == plain else f"/{folder}"
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{self.repo}/{self.file}{name}{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A pulled model, and the other file that the Hub has in its place."""

    pulled: Pulled
    remote: RemoteFile


def pulled_models(models: str) -> Iterator[Pulled]:
    """Yield the models in the directory `models`, a real path, of which it is known where they came from."""
    digests = DigestCache(models)
    digests.refresh()
    for entry in scan(models):
        folder = os.path.dirname(entry.path)
        if entry.parent or os.path.islink(folder):
            continue
        record = read_record(folder)
        repo, file, revision = (str(record.get(key) or "") for key in ("repo", "file", "revision"))
        if is_repository(repo) and revision and file.rpartition("/")[2] == entry.file:
            yield Pulled(
                name=entry.name,
                path=entry.path,
                size=entry.size,
                repo=repo,
                file=file,
                revision=revision,
                sha256=digests.get(entry.path, entry.size, entry.mtime_ns),
            )


def newer(hub: Hub, pulled: Pulled) -> Update | None:
    """Return the file that the Hub has by now where it is another one. Raises PullError."""
    remote = hub.file(Repository(id=pulled.repo, revision=pulled.revision), pulled.file)
    if remote.size == pulled.size:
        if pulled.sha256 is not None and remote.sha256 is not None:
            same = pulled.sha256 == remote.sha256
        else:
            same = FileCheck(pulled.path, remote.etag).run()
        if same:
            return None
    return Update(pulled=pulled, remote=remote)
