"""Names that describe a model besides its file's own: those of its folder and its repository.

`rkllama list` imports this module, hence no json: what is looked for is one string in a small file.
"""

from __future__ import annotations

import os
import re

from .filename import parse_parameter_size, parse_platform, parse_quantization, strip_extension
from .scan import Entry, open_nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PULL_RECORD = ".pull.json"
"""What `pull` leaves beside a model: the repository, the file and the revision."""
_LIMIT = 1 << 16
_REPOSITORY = r'"repo"\s*:\s*"([\w./-]+)"'
_REVISION = r'"revision"\s*:\s*"([\w./-]+)"'
_HUGGINGFACE_PATH = r'(?im)^[ \t]*HUGGINGFACE_PATH[ \t]*=[ \t]*["\']?([\w./-]+)'

_Labels = tuple[str | None, str | None, str | None]
"""Quantisation, platform, number of weights."""


def origins(entry: Entry) -> Iterator[str]:
    """Yield the names, nearest first: the folder's, "user/name@revision", and the older Modelfiles' path.

    Files are read when their turn comes.
    """
    folder = os.path.dirname(entry.path)
    # An alias has a folder of its own, and the file may lie in none.
    if entry.folder and not (entry.parent and _is_root(folder, entry)):
        yield os.path.basename(folder)
        record = _read(os.path.join(folder, PULL_RECORD))
        if repository := re.search(_REPOSITORY, record):
            revision = re.search(_REVISION, record)
            yield f"{repository[1]}@{revision[1]}" if revision else repository[1]
    if entry.modelfile and (path := re.search(_HUGGINGFACE_PATH, _read(entry.modelfile))):
        yield path[1]


def labels(entry: Entry) -> _Labels:
    """Quantisation, platform and number of weights, for lists; a .gguf file's header knows best."""
    told = _parse(entry.file)
    if entry.format == "gguf":
        told = _first_known(_header_labels(entry, brief=True), told)
    elif None not in told:
        return told
    for name in origins(entry):
        told = _first_known(told, _parse(name))
    if entry.format == "gguf" and told[2] is None:
        told = _first_known(
            told, _header_labels(entry, brief=False)
        )  # its weights have to be counted
    return told


def _parse(name: str) -> _Labels:
    name = strip_extension(name)
    return parse_quantization(name), parse_platform(name), parse_parameter_size(name)


def _first_known(first: _Labels, then: _Labels) -> _Labels:
    return first[0] or then[0], first[1] or then[1], first[2] or then[2]


def _header_labels(entry: Entry, *, brief: bool) -> _Labels:
    from .gguf import GGUFError, read_header

    try:
        header = read_header(entry.path, brief=brief)
    except GGUFError:
        return None, None, None
    return header.quantization, None, header.parameter_size


def _is_root(folder: str, entry: Entry) -> bool:
    return folder == os.path.dirname(os.path.dirname(entry.modelfile))


def _read(path: str) -> str:
    """Return a small file's text, "" if it is missing."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=open_nonblocking) as stream:
            return stream.read(_LIMIT)
    except OSError:
        return ""
