"""Files of which a model is to be made: found in a Modelfile and read by the client, uploaded by it for
`/api/create`, and kept by the server under their sha256 until the model is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Literal

from ..errors import DiskFull, InvalidRequest, RKLLamaError
from ..files import RESERVE, NewFile, clear_new_files, free_space, is_full, not_written, write_file
from ..types import PullProgress
from .filename import EXTENSIONS
from .modelfile import parse_modelfile

CREATED = ".created"
"""Lies beside a file that `create` has brought, which another `create` may replace."""
REPLACED = ".replaced"
"""Such a file while another one takes its place."""
_BLOCK = 1 << 20
"""Bytes read at once."""
_LONGEST = 200
"""Bytes of a file's name; file systems take 255, and what lies beside a model has a longer one."""
_KEPT = 24 * 3600.0
"""Seconds that an upload waits for its create; after a day nobody will ask for it."""


# --- Where the file lies -----------------------------------------------------------------------


def source_of(text: str, modelfile: str, models: str) -> str | None:
    """Return the path of the file that FROM means in a Modelfile that was read from the path `modelfile`;
    None where it means a model. What has no folder before it, or lies in `models`, is the name of one.
    """
    source = parse_modelfile(text).source or ""
    if "/" not in source or not source.lower().endswith(EXTENSIONS):
        return None
    return _outside(source, modelfile, models)


def adapter_of(text: str, modelfile: str, models: str) -> str | None:
    """Return the path of the file that ADAPTER means, as `source_of`; None where it lies in `models`."""
    adapter = parse_modelfile(text).adapter
    return _outside(adapter, modelfile, models) if adapter else None


def _outside(name: str, modelfile: str, models: str) -> str | None:
    """Return the path of a file that a Modelfile names, unless it is none or lies in `models`."""
    path = os.path.realpath(os.path.join(os.path.dirname(modelfile), os.path.expanduser(name)))
    inside = path.startswith(os.path.join(os.path.realpath(models), ""))
    return path if "\0" not in path and os.path.isfile(path) and not inside else None


class Source:
    """A file to be read, `size` bytes long. Raises InvalidRequest."""

    def __init__(self, path: str, report: Callable[[PullProgress], object]) -> None:
        self._path = path
        self._report = report
        with self._explained():
            self.size = os.stat(path).st_size

    def blocks(self, status: Literal["copying", "verifying"]) -> Iterator[bytes]:
        """Yield what it holds, from its beginning; each piece is reported once it has been used."""
        file, done = os.path.basename(self._path), 0
        with self._explained(), open(self._path, "rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
                done += len(block)
                self._report(
                    PullProgress(status=status, file=file, total=self.size, completed=done)
                )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidRequest(f"{self._path} cannot be read: {error.strerror}") from None


# --- Where the model is made -------------------------------------------------------------------


class Upload:
    """A file as it comes: on disk and hashed piece by piece. It is gone once closed, unless it was kept.

    No piece raises anything: `failure` says what the file system refused, and `keep` raises it. `size`
    is how long the file will be, where that is known.
    """

    def __init__(self, models: str, size: int = 0) -> None:
        self.failure: RKLLamaError | None = None
        self._models = models
        self._length = 0
        self._sha256 = hashlib.sha256()
        self._file: NewFile | None = None
        with self._explained():
            os.makedirs(_folder(models), exist_ok=True)
            _forget_old(_folder(models))
            if not self._fits(size):
                return
            self._file = NewFile(_folder(models), _BLOCK)
            os.fchmod(self._file.stream.fileno(), 0o644)

    def __len__(self) -> int:
        return self._length

    def append(self, data: bytes) -> None:
        """Add the next piece; after a failure it is dropped."""
        before, self._length = self._length, self._length + len(data)
        if before // _BLOCK != self._length // _BLOCK:
            self._fits(0)
        if self._file is not None and self.failure is None:
            with self._explained():
                self._file.stream.write(data)
                self._sha256.update(data)

    def _fits(self, size: int) -> bool:
        """Return whether so many bytes more leave the disk its reserve; if not, that is the failure."""
        free = free_space(self._models)
        if size + RESERVE > free and self.failure is None:
            text = f"the upload has {size or self._length} bytes, but only {free} are free"
            self.failure = DiskFull(text, needed=size + RESERVE, available=free)
        return self.failure is None

    def getfile(self) -> Upload:
        """Return the application's input: this object is a buffer like waitress's own."""
        return self

    def keep(self, digest: str | None = None) -> str:
        """Keep it for a create; return its sha256. Raises InvalidRequest where that is not `digest`,
        DiskFull, RKLLamaError.
        """
        sha256 = self._sha256.hexdigest()
        if self._file is not None and self.failure is None:
            if digest not in (sha256, None):
                raise InvalidRequest(f"the upload's sha256 is {sha256}, not {digest}")
            with self._explained():
                self._file.place(os.path.join(_folder(self._models), sha256))
        if self.failure is not None:
            raise self.failure
        return sha256

    def close(self) -> None:
        """Drop what was not kept."""
        file, self._file = self._file, None
        if file is not None:
            file.discard()

    __del__ = close
    """The server closes what it has read; of a connection that breaks off it drops the request only."""

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Note what the file system refuses, in words for the client."""
        try:
            yield
        except OSError as error:
            reason = f"the upload cannot be saved: {error.strerror or error}"
            if is_full(error):
                free = free_space(self._models)
                self.failure = DiskFull(reason, needed=1, available=free)
            else:
                hint = f"Check that RKLLama may write to {_folder(self._models)}."
                self.failure = RKLLamaError(reason, hint=hint)


def _folder(models: str) -> str:
    return os.path.join(models, ".rkllama", "blobs")


def _forget_old(folder: str) -> None:
    """Delete uploads that were never used, or that a killed server left behind."""
    long_ago = time.time() - _KEPT
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another upload may have deleted it
                if entry.stat(follow_symlinks=False).st_mtime < long_ago:
                    os.unlink(entry.path)


def clear_leftovers(models: str) -> None:
    """Remove what killed processes have left in the directory `models`: files that were being written, and
    uploads that nobody has come for. A download that was interrupted stays, to be continued.
    """
    own = os.path.join(models, ".rkllama")
    with contextlib.suppress(OSError), os.scandir(models) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                clear_new_files(entry.path)
    for folder in (models, own, _folder(models)):
        clear_new_files(folder)
    with contextlib.suppress(OSError):
        _forget_old(_folder(models))


class Blobs:
    """The uploads in `<models>/.rkllama/blobs`."""

    def __init__(self, models: str) -> None:
        self._models = models

    def _path(self, digest: str) -> str:
        return os.path.join(_folder(self._models), digest)

    def has(self, digest: str) -> bool:
        """Return whether the file of this sha256 (64 hex digits) has been uploaded."""
        return os.path.isfile(self._path(digest))

    def put(self, digest: str, stream: Upload | IO[bytes]) -> None:
        """Keep an upload; see Upload.keep."""
        if isinstance(stream, Upload):
            stream.keep(digest)
            return
        with contextlib.closing(Upload(self._models)) as upload:
            while block := stream.read(_BLOCK):
                upload.append(block)
            upload.keep(digest)

    @contextlib.contextmanager
    def placed(
        self,
        files: Sequence[tuple[str, str]],
        name: str,
        old: str | None = None,
        *,
        replaceable: bool = True,
    ) -> Iterator[tuple[str, str]]:
        """The one upload among `files` (name, digest) as the file of the new model `name`, in a folder
        of that name, where it takes the place of the file `old`: its path and sha256. `replaceable` says
        whether another one may take its place in turn.

        It stays where what is done with it succeeds, else it is an upload again, and `old` is back. Raises
        InvalidRequest when it is not exactly one model file, or was not uploaded; RKLLamaError.
        """
        file, digest = self._chosen(files)
        folder = os.path.join(self._models, name)
        upload, path = self._path(digest), os.path.join(folder, file)
        aside = os.path.join(folder, REPLACED)
        try:
            try:
                os.makedirs(folder, exist_ok=True)
                if old is not None:
                    os.replace(old, aside)
                os.replace(upload, path)
                if replaceable:
                    write_file(os.path.join(folder, CREATED), b"")
            except OSError as error:
                raise not_written(error, path) from error
            yield path, digest
        except BaseException:
            _put_back(path, upload)
            if old is None:
                _remove(os.path.join(folder, CREATED))
            else:
                _put_back(aside, old)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            raise
        _remove(aside)

    def adapter(self, files: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Return the name and the path of the one LoRA that was uploaded. Raises InvalidRequest."""
        if len(files) != 1:
            raise InvalidRequest("'adapters' must contain exactly one file", param="adapters")
        file, digest = self._uploaded(files[0], "adapters")
        return file, self._path(digest)

    def _chosen(self, files: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Return the model file's name, and the digest of the upload that it is."""
        models = [(file, digest) for file, digest in files if file.lower().endswith(EXTENSIONS)]
        if len(models) != 1 or len(files) != 1:
            raise InvalidRequest(
                "'files' must contain exactly one .rkllm or .gguf file", param="files"
            )
        return self._uploaded(models[0], "files")

    def _uploaded(self, named: tuple[str, str], param: str) -> tuple[str, str]:
        file, digest = named
        file = os.path.basename(file.replace("\\", "/"))
        if not file or file.startswith(".") or not file.isprintable() or not self.has(digest):
            raise InvalidRequest(
                f"{file!r} with sha256:{digest} has not been uploaded", param=param
            )
        if len(os.fsencode(file)) > _LONGEST:
            raise InvalidRequest(f"the name {file[:40]}… is too long", param=param)
        return file, digest


def _put_back(path: str, original: str) -> None:
    with contextlib.suppress(OSError):
        os.replace(path, original)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
