"""Names that tell about a model beside its file's own: of its folder and of the repository it is from.

`rkllama list` imports this module, hence no json: what is looked for is one string in a small file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .names import parse_parameter_size, parse_platform, parse_quantization
from .scan import Entry, open_nonblocking

PULL_RECORD = ".pull.json"
"""What `pull` leaves beside a model: the repository, the file and the revision."""
_LIMIT = 1 << 16
_REPOSITORY = r'"repo"\s*:\s*"([\w./-]+)"'
_REVISION = r'"revision"\s*:\s*"([\w./-]+)"'
_HUGGINGFACE_PATH = r'(?im)^[ \t]*HUGGINGFACE_PATH[ \t]*=[ \t]*["\']?([\w./-]+)'


def origins(entry: Entry) -> Iterator[str]:
    """The names, nearest first: the folder's, "user/name@revision", and the older Modelfiles' path.

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


def labels(entry: Entry) -> tuple[str | None, str | None, str | None]:
    """Quantisation, platform and number of weights, for lists; a .gguf file's header knows best."""
    quantization, platform, size = _parse(entry.file)
    if entry.format == "gguf":
        quantization, size = _by_header(entry, quantization, size)
    elif quantization and platform and size:
        return quantization, platform, size
    for name in origins(entry):
        also = _parse(name)
        quantization, platform, size = (
            quantization or also[0],
            platform or also[1],
            size or also[2],
        )
    if entry.format == "gguf" and not size:
        size = _counted(entry)
    return quantization, platform, size


def _parse(name: str) -> tuple[str | None, str | None, str | None]:
    return parse_quantization(name), parse_platform(name), parse_parameter_size(name)


def _by_header(
    entry: Entry, quantization: str | None, size: str | None
) -> tuple[str | None, str | None]:
    from .gguf import GGUFError, parameter_size, read_header

    try:
        header = read_header(entry.path, brief=True)
    except GGUFError:
        return quantization, size
    counted = parameter_size(header.parameters) if header.parameters else header.size_label
    return header.quantization or quantization, counted or size


def _counted(entry: Entry) -> str | None:
    """The weights of a model that nowhere says how many it has."""
    from .gguf import GGUFError, parameter_size, read_header

    try:
        count = read_header(entry.path).parameters
    except GGUFError:
        return None
    return parameter_size(count) if count else None


def _is_root(folder: str, entry: Entry) -> bool:
    return folder == os.path.dirname(os.path.dirname(entry.modelfile))


def _read(path: str) -> str:
    """A small file's text, "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=open_nonblocking) as stream:
            return stream.read(_LIMIT)
    except OSError:
        return ""
