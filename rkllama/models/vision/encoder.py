"""The image encoder of a model on disk: which file it is, what that says, and whether it can be used here."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from importlib.util import find_spec
from typing import NamedTuple

from ...board.soc import read_soc
from ...errors import LoadFailed
from ...rknn.file import EncoderFile, read_file
from ...rknn.library import FILE, look_for_library
from ...types import EncoderInfo
from ..filename import EXTENSIONS, parse_platform, strip_extension
from ..scan import may_follow
from .choice import RKNN, find_encoder, is_named_for
from .mmproj import read_mmproj

GGUF = EXTENSIONS[1]
OFF = "off"
"""The VISION_ENCODER of a Modelfile that wants none."""


class EncoderStamp(NamedTuple):
    """An encoder as it lies on the disk, and what it needs here: equal stamps mean an equal EncoderInfo."""

    path: str
    size: int
    mtime_ns: int
    library: str | None
    """The librknnrt that would be loaded; "" for an encoder that needs none."""
    decodes: bool
    """Whether pictures can be decoded."""


def find_beside(model: str, root: str, platform: str | None) -> str | None:
    """Return the path of the encoder that lies beside the model at the path `model` in the models directory
    `root`, a real path: in its folder, or with its name where it has none of its own.
    """
    folder, file = os.path.split(model)
    if folder == root and not file.lower().endswith(GGUF):
        found: str | None = strip_extension(file) + RKNN
    else:
        found = _find_in(folder, file, platform, alone=folder != root)
    if found is None:
        return None
    path = os.path.join(folder, found)
    return path if os.path.isfile(path) and may_follow(path, root) else None


def _find_in(folder: str, file: str, platform: str | None, *, alone: bool) -> str | None:
    """Return the encoder of a model among the files of a folder, which it has to itself if `alone`."""
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    if not alone:
        names = [name for name in names if is_named_for(name, file)]
    return find_encoder(file, sorted(names), platform or _platform_here())


def stamp_encoder(path: str, library: str | None) -> EncoderStamp | None:
    """Return the stamp of the encoder at `path`, None for what is no file. `library` is a setting."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return EncoderStamp(
        path=path,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        library="" if path.lower().endswith(GGUF) else look_for_library(library),
        decodes=find_spec("PIL") is not None,
    )


def read_encoder(stamp: EncoderStamp, platform: str | None, *, cpu: bool = False) -> EncoderInfo:
    """Return what is known of an encoder; `platform` is its model's, which is for llama.cpp if `cpu`."""
    read = _read_mmproj if stamp.path.lower().endswith(GGUF) else _read_rknn
    info = read(stamp, platform)
    if cpu is not (read is _read_mmproj):
        where = "llama.cpp" if cpu else "the NPU"
        return replace(info, problem=f"it is no encoder for {where}, which runs the model")
    return info


def _read_rknn(stamp: EncoderStamp, platform: str | None) -> EncoderInfo:
    try:
        facts, problem = read_file(stamp.path), None
    except LoadFailed as error:
        facts, problem = EncoderFile(), error.message
    return EncoderInfo(
        file=os.path.basename(stamp.path),
        path=stamp.path,
        size=stamp.size,
        width=facts.width,
        height=facts.height,
        tokens=facts.tokens,
        platforms=facts.platforms,
        problem=problem or _misfit(facts, platform) or _missing(stamp),
    )


def _read_mmproj(stamp: EncoderStamp, _platform: str | None) -> EncoderInfo:
    info = EncoderInfo(file=os.path.basename(stamp.path), path=stamp.path, size=stamp.size)
    try:
        facts = read_mmproj(stamp.path)
    except LoadFailed as error:
        return replace(info, problem=error.message)
    return replace(
        info,
        width=facts.side,
        height=facts.side,
        tokens=facts.tokens,
        newest_only=facts.newest_only,
        problem=facts.problem or _missing(stamp),
    )


def _misfit(facts: EncoderFile, platform: str | None) -> str | None:
    """Return why the encoder is for another SoC than its model, or than this one."""
    made_for = {parse_platform(name) or name for name in facts.platforms}
    if not made_for:
        return None
    names = ", ".join(facts.platforms)
    if platform is not None and platform not in made_for:
        return f"it was made for the {names}, the model for the {platform}"
    here = _platform_here()
    if here is not None and here not in made_for:
        return f"it was made for the {names}, and this is the {here}"
    return None


def _missing(stamp: EncoderStamp) -> str | None:
    if stamp.library is None:
        return f"{FILE} is not there: rkllama runtime install rknn"
    if not stamp.decodes:
        return "Pillow is not installed, which decodes pictures: pip install 'rkllama[vision]'"
    return None


def _platform_here() -> str | None:
    soc = read_soc()
    return parse_platform(soc) if soc else None
