"""Names that describe a model besides its file's own: those of its folder and its repository.

`rkllama list` imports this module, hence no json: what is looked for is one string in a small file.
"""

from __future__ import annotations

import os
import re

from .filename import parse_parameter_size, parse_platform, parse_quantization, strip_extension
from .scan import Entry, has_encoder, open_nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PULL_RECORD = ".pull.json"
"""What `pull` leaves beside a model: the repository, the file and the revision."""
_LIMIT = 1 << 16
_REPOSITORY = r'"repo"\s*:\s*"([\w./-]+)"'
_FILE = r'"file"\s*:\s*"([^"\\]+)"'
_REVISION = r'"revision"\s*:\s*"([\w./-]+)"'
_HUGGINGFACE_PATH = r'(?im)^[ \t]*HUGGINGFACE_PATH[ \t]*=[ \t]*["\']?([\w./-]+)'


_ENCODER = r"(?im)^[ \t]*VISION_ENCODER\b"


class Labels:
    """Quantisation, platform and number of weights of a model; None where nothing tells them."""

    __slots__ = ("parameter_size", "platform", "quantization")

    def __init__(
        self,
        quantization: str | None = None,
        platform: str | None = None,
        parameter_size: str | None = None,
    ) -> None:
        self.quantization = quantization
        self.platform = platform
        self.parameter_size = parameter_size

    def is_complete(self) -> bool:
        """Whether all of them are known."""
        return None not in (self.quantization, self.platform, self.parameter_size)

    def over(self, others: Labels) -> Labels:
        """These labels, with what they leave open taken from `others`."""
        return Labels(
            self.quantization or others.quantization,
            self.platform or others.platform,
            self.parameter_size or others.parameter_size,
        )


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


def labels(entry: Entry) -> Labels:
    """What is known for lists; a .gguf file's header knows best."""
    result = _parse(entry.file)
    if entry.format == "gguf":
        result = _header_labels(entry, brief=True).over(result)
    elif result.is_complete():
        return result
    for name in origins(entry):
        result = result.over(_parse(name))
    if entry.format == "gguf" and result.parameter_size is None:
        result = result.over(_header_labels(entry, brief=False))  # its weights have to be counted
    return result


def may_see(entry: Entry, encoders: set[str]) -> bool:
    """Return whether a model may have an image encoder: one lies beside it, or its Modelfile names one."""
    if entry.modelfile and re.search(_ENCODER, _read(entry.modelfile)):
        return True
    return has_encoder(entry, encoders)


def total_size(part: Entry) -> int | None:
    """Return the bytes that an incomplete download will have; None where its note does not tell."""
    match = re.search(r'"size"\s*:\s*(\d{1,19})', _read(f"{part.path}.json"))
    return int(match[1]) if match else None


def pull_reference(part: Entry) -> str | None:
    """Return what `pull` takes to continue an incomplete download; None where nothing tells."""
    folder = os.path.dirname(part.path)
    record = _read(os.path.join(folder, PULL_RECORD))
    repository, file = re.search(_REPOSITORY, record), re.search(_FILE, record)
    if not repository or not file:
        return None
    revision = re.search(_REVISION, record)
    at = f"@{revision[1]}" if revision and revision[1] != "main" else ""
    name = os.path.basename(folder)
    named = "" if name == strip_extension(part.file) else f"/{name}"
    return f"{repository[1]}/{file[1]}{named}{at}"


def _parse(name: str) -> Labels:
    name = strip_extension(name)
    return Labels(parse_quantization(name), parse_platform(name), parse_parameter_size(name))


def _header_labels(entry: Entry, *, brief: bool) -> Labels:
    from .gguf import GGUFError, read_header

    try:
        header = read_header(entry.path, brief=brief)
    except GGUFError:
        return Labels()
    return Labels(header.quantization, None, header.parameter_size)


def _is_root(folder: str, entry: Entry) -> bool:
    return folder == os.path.dirname(os.path.dirname(entry.modelfile))


def _read(path: str) -> str:
    """Return a small file's text, "" if it is missing."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=open_nonblocking) as stream:
            return stream.read(_LIMIT)
    except OSError:
        return ""
