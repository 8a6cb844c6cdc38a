"""Files that clients upload for `/api/create`: kept by their sha256 until a model is made of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

from .disk import free_space, is_full
from .errors import DiskFull, InvalidRequest, RKLLamaError
from .names import EXTENSIONS

_BLOCK = 1 << 20
_LONGEST = 200
"""Bytes of a file's name; file systems take 255, and what lies beside a model has a longer one."""


class Blobs:
    """The uploads in `<models>/.rkllama/blobs`."""

    def __init__(self, models: str) -> None:
        self._models = models
        self._folder = os.path.join(models, ".rkllama", "blobs")

    def _path(self, digest: str) -> str:
        return os.path.join(self._folder, digest)

    def has(self, digest: str) -> bool:
        """Whether the file of this sha256 (64 hex digits) has been uploaded."""
        return os.path.isfile(self._path(digest))

    def put(self, digest: str, stream: IO[bytes]) -> None:
        """Keep an upload. Raises InvalidRequest when it has another sha256, DiskFull, RKLLamaError."""
        with self._local_errors():
            os.makedirs(self._folder, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as out:
                    found = _copy(stream, out)
                if found != digest:
                    raise InvalidRequest(f"the upload's sha256 is {found}, not {digest}")
                os.replace(temporary, self._path(digest))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    @contextlib.contextmanager
    def _local_errors(self) -> Iterator[None]:
        """Explain what the file system refuses."""
        try:
            yield
        except OSError as error:
            reason = f"the upload cannot be kept: {error.strerror or error}"
            if is_full(error):
                free = free_space(self._models)
                raise DiskFull(reason, needed=1, available=free) from error
            raise RKLLamaError(
                reason, hint=f"Check that the server may write to {self._folder}."
            ) from error

    @contextlib.contextmanager
    def placed(self, files: Sequence[tuple[str, str]]) -> Iterator[str]:
        """A model file made out of the one upload among `files` (name, digest): its file name.

        It stays where what is done with it succeeds, else it is an upload again. Raises InvalidRequest
        when it is not exactly one model file, or was not uploaded; RKLLamaError.
        """
        name, digest = self._chosen(files)
        upload, file = self._path(digest), os.path.join(self._models, name)
        if os.path.lexists(file):  # of an earlier model that was made from the same
            yield name
            with contextlib.suppress(OSError):
                os.unlink(upload)
            return
        with self._local_errors():
            os.replace(upload, file)
        try:
            yield name
        except BaseException:
            with contextlib.suppress(OSError):
                os.replace(file, upload)
            raise

    def _chosen(self, files: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """The model file's name, and the digest of the upload that it is."""
        models = [(file, digest) for file, digest in files if file.lower().endswith(EXTENSIONS)]
        if len(models) != 1 or len(files) != 1:
            raise InvalidRequest("'files' must hold one .rkllm or .gguf file", param="files")
        file, digest = models[0]
        file = os.path.basename(file.replace("\\", "/"))
        if file.startswith(".") or not file.isprintable() or not self.has(digest):
            raise InvalidRequest(f"no upload of {file!r} with sha256:{digest}", param="files")
        name = f"{digest[:12]}-{file}"
        if len(os.fsencode(name)) > _LONGEST:
            raise InvalidRequest(f"the name {file[:40]}… is too long", param="files")
        return name, digest


def _copy(stream: IO[bytes], out: IO[bytes]) -> str:
    """Copy to the end; answers the sha256."""
    sha256 = hashlib.sha256()
    while block := stream.read(_BLOCK):
        sha256.update(block)
        out.write(block)
    return sha256.hexdigest()
