"""Where a pulled model goes, and whether it is there already.

    models/FILE-without-extension/FILE        the model; FILE.part until it is complete
                                 /.pull.json  where it came from
                                 /tokenizer_config.json, chat_template.jinja, … (see sidecars.py)

Each model has a folder of its own, named for its file, so two quantisations of one repository never
meet and the folder's name is the model's. Where another file of that name has taken the folder, the new
one's is USER_REPO_FILE. A file that the user put there is never overwritten, and one that is the wanted
one already is not fetched again, whatever its folder is called. Only the same file of the same revision
of the same repository replaces what an earlier pull has brought.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest, PullError
from ..models.digests import DigestCache
from ..models.filename import EXTENSIONS, strip_extension
from ..models.labels import PULL_RECORD
from ..models.reference import Reference, parse_reference
from ..models.scan import MODELFILE, Entry, scan
from .api import DEFAULT_REVISION, RemoteFile
from .partial import FileCheck, read_json, write_json


class Place:
    """The place of the file `remote` in the directory `models`, a real path."""

    def __init__(self, models: str, remote: RemoteFile) -> None:
        self.models = models
        self.remote = remote
        self._digests = DigestCache(models)

    def namesakes(self) -> Iterator[str]:
        """Yield the paths of models with this file's name and size that may be it."""
        for entry in scan(self.models):
            same = entry.file == self.remote.name and entry.size == self.remote.size
            if same and not entry.parent and self._known(entry.path) in (None, self.remote.etag):
                yield entry.path

    def holds(self, path: str) -> bool:
        """Return whether the file at `path` is known to be the wanted one, without reading it."""
        return self._known(path) == self.remote.etag

    def check(self, path: str) -> FileCheck:
        """Return the way to find out by reading it."""
        return FileCheck(path, self.remote.etag)

    def remember(self, path: str) -> None:
        """Keep that the file at `path` is the wanted one; the store shows the hash as its digest."""
        if self.remote.sha256:
            self._digests.put(path, self.remote.sha256)

    def _without_folder(self) -> Iterator[Entry]:
        return (entry for entry in scan(self.models) if not entry.folder)

    def name(self, path: str) -> str:
        """Return the name under which the model can be used."""
        names = (entry.name for entry in scan(self.models) if entry.path == path)
        return next(names, self.remote.name)

    def claim(self, revision: str, name: str | None = None) -> str:
        """Return the path for the file, in a folder that is its own from now on: that of `name`, if given.

        Raises PullError when that folder, or even the one that no other file should have, is taken.
        """
        origin = {"repo": self.remote.repo, "file": self.remote.path, "revision": revision}
        if name and any(entry.name.lower() == name.lower() for entry in self._without_folder()):
            raise PullError(f"{name} is another model's name", hint="Choose another name.")
        with self._locked():
            for choice in (name,) if name else _folder_names(origin):
                folder = os.path.join(self.models, choice)
                if _take(folder, origin):
                    return os.path.join(folder, self.remote.name)
        raise PullError(
            f"{folder} already contains another model",
            hint="Rename or remove it, then run the command again.",
        )

    def give_up(self, path: str) -> None:
        """Remove the folder that was claimed for `path` unless something has come or is expected there."""
        folder = os.path.dirname(path)
        with self._locked(), contextlib.suppress(OSError):
            if os.listdir(folder) == [PULL_RECORD]:
                os.unlink(os.path.join(folder, PULL_RECORD))
                os.rmdir(folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the other processes that pull from making or removing folders."""
        lock = os.open(self.models, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _known(self, path: str) -> str | None:
        """Return the file's sha256 where it has been computed since the file changed last, and compares."""
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return None
        self._digests.refresh()
        digest = self._digests.get(path, stat.st_size, stat.st_mtime_ns)
        return digest if self.remote.sha256 else None


def is_claimed(path: str) -> bool:
    """Return whether the file at `path` lies in a folder that a pull has made, here and not behind a link."""
    folder = os.path.dirname(path)
    return not os.path.islink(folder) and bool(read_record(folder))


def begun_under(models: str, name: str) -> Reference | None:
    """Return what a pull has begun to fetch under `name`; None where that is nothing."""
    folder = os.path.join(models, name)
    record = {} if os.path.islink(folder) else read_record(folder)
    if not record:
        return None
    repo, file, revision = (record.get(key) for key in ("repo", "file", "revision"))
    try:
        reference = parse_reference(f"{repo}/{file}@{revision}")
    except InvalidRequest:
        return None
    return replace(reference, name=name)


def _folder_names(origin: dict[str, str]) -> Iterator[str]:
    """Yield the name that a model should have, then the one that no other origin's model can have."""
    path = strip_extension(origin["file"])
    yield path.rpartition("/")[2]
    revision = "" if origin["revision"] == DEFAULT_REVISION else f"_{origin['revision']}"
    yield f"{origin['repo']}{revision}_{path}".replace("/", "_")


def _take(folder: str, origin: dict[str, str]) -> bool:
    """Return whether the folder belongs to this origin; makes and marks it when it belongs to nobody."""
    if os.path.islink(folder):
        return False
    record = read_record(folder)
    if not record and _is_free(folder):
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, PULL_RECORD), origin)
        return True
    return record == origin


def _is_free(folder: str) -> bool:
    """Return whether nothing is there, or a directory with neither a model nor a Modelfile."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    return not any(name == MODELFILE or name.lower().endswith(EXTENSIONS) for name in names)


def read_record(folder: str) -> dict[str, Any]:
    """Return the `repo`, `file` and `revision` that a pull has noted in a model's folder; {} for none."""
    record = read_json(os.path.join(folder, PULL_RECORD))
    return record if isinstance(record, dict) else {}
