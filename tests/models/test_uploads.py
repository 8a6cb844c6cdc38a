"""Uploads for /api/create: kept whole or not at all, and made a model only together with its name."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path

import pytest

from rkllama.errors import DiskFull, RKLLamaError
from rkllama.models.authoring import WritableStore
from rkllama.models.uploads import Blobs

DATA = b"a model's bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


def files(models: Path) -> set[str]:
    """The files below the directory."""
    return {str(path.relative_to(models)) for path in models.rglob("*") if path.is_file()}


# --- Keeping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["makedirs", "open", "replace"])
@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "Free some space"),
        (errno.EDQUOT, DiskFull, "Free some space"),
        (errno.EROFS, RKLLamaError, "may write to"),
        (errno.EACCES, RKLLamaError, "may write to"),
    ],
)
def test_what_the_disk_refuses_is_explained(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    kind: type[RKLLamaError],
    words: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, refuse)
        with pytest.raises(RKLLamaError) as caught:
            Blobs(str(models)).put(DIGEST, io.BytesIO(DATA))
    assert type(caught.value) is kind
    assert os.strerror(number) in caught.value.message
    assert words in caught.value.text
    assert files(models) == set()


# --- Making a model of one ---------------------------------------------------------------------

FILES = [("m.rkllm", DIGEST)]
FILE = os.path.join("made", "m.rkllm")


def upload(models: Path) -> Blobs:
    blobs = Blobs(str(models))
    blobs.put(DIGEST, io.BytesIO(DATA))
    return blobs


def test_an_upload_is_one_again_where_no_model_came_of_it(models: Path) -> None:
    blobs = upload(models)
    for _ in range(2):
        with pytest.raises(RKLLamaError, match="no"), blobs.placed(FILES, "made"):
            raise RKLLamaError("no")
        assert blobs.has(DIGEST)
        assert not (models / "made").exists()
    with blobs.placed(FILES, "made") as (path, digest):
        assert digest == DIGEST
        assert Path(path).read_bytes() == DATA
    assert files(models) == {FILE, os.path.join("made", ".created")}
    assert (models / FILE).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["m.rkllm", "other.rkllm"])
def test_an_upload_takes_the_place_of_a_file_or_leaves_it(name: str, models: Path) -> None:
    blobs = upload(models)
    (models / "made").mkdir()
    old = models / "made" / name
    old.write_bytes(b"old")
    with pytest.raises(RKLLamaError, match="no"), blobs.placed(FILES, "made", str(old)):
        raise RKLLamaError("no")
    assert old.read_bytes() == b"old"
    assert blobs.has(DIGEST)
    with blobs.placed(FILES, "made", str(old)):
        pass
    assert files(models) == {FILE, os.path.join("made", ".created")}


def test_a_file_that_cannot_be_placed_stays_an_upload(models: Path) -> None:
    blobs = upload(models)
    (models / "made").write_text("no folder")
    with pytest.raises(RKLLamaError, match="cannot be written"), blobs.placed(FILES, "made"):
        pass
    assert blobs.has(DIGEST)


@pytest.mark.parametrize("step", ["makedirs", "replace"])
def test_a_model_for_which_the_disk_has_no_room_is_told_so(
    models: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blobs, store = upload(models), WritableStore(str(models))
    (models / "m.rkllm").write_bytes(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, refuse)
        with pytest.raises(DiskFull, match="cannot be written"), blobs.placed(FILES, "made"):
            pass
        with pytest.raises(DiskFull, match="Modelfile cannot be written"):
            store.create("other", "FROM m\nSYSTEM hi")
    store.close()
    assert blobs.has(DIGEST)
