"""What lies in the models directory, read as fast as the file system allows.

    models/qwen.rkllm                a model, named "qwen"
    models/qwen/any-file.rkllm       a model, named "qwen"
    models/qwen/{a,b}.rkllm          two models, "qwen/a" and "qwen/b"
    models/tuned/Modelfile           an alias: another name (and other defaults) of a model

Hidden files, unfinished downloads (.part) and vision encoders are no models. A symlink counts where
it leads to something inside the directory; whatever leads outside is not there at all. Names that
cannot be printed or encoded are left out, too: nothing could name them.

`rkllama list` imports this module: hence no dataclass, no pathlib.
"""

from __future__ import annotations

import os
import re
from collections import Counter, namedtuple
from collections.abc import Iterable, Iterator

from .errors import ConfigError, ModelsDirMissing
from .names import EXTENSIONS, strip_extension

MODELFILE = "Modelfile"
_MODELFILE_LIMIT = 1 << 20
_ALIAS_DEPTH = 8


class Entry(
    namedtuple(
        "Entry",
        [
            "name",
            "file",
            "path",
            "size",
            "modified",
            "format",
            "folder",
            "modelfile",
            "mtime_ns",
            "parent",
        ],
    )
):
    """A model on disk, or an alias of one: then file, path, size and format are its model's."""

    __slots__ = ()

    name: str
    """Unique, and what every command takes."""
    file: str
    """The file's name without folders."""
    path: str
    """Absolute, below the real path of the models directory."""
    size: int
    modified: float
    """Seconds since the epoch; of the Modelfile for an alias."""
    format: str
    """"rkllm" or "gguf"; "" for an alias whose model is not there."""
    folder: str
    """The subfolder's name, "" for a file that lies directly in the models directory."""
    modelfile: str
    """Path of the Modelfile that belongs to it, "" where there is none."""
    mtime_ns: int
    """Of the model's file."""
    parent: str
    """For an alias: the name of what it is made from, as in its Modelfile where that is not there."""


def scan(models: str) -> list[Entry]:
    """The models and the aliases that lead to one, by name. Raises ModelsDirMissing, ConfigError."""
    return [entry for entry in scan_all(models) if entry.format]


def scan_all(models: str) -> list[Entry]:
    """Like `scan`, with the aliases whose model is missing (format "")."""
    root = os.path.realpath(models)
    entries: list[Entry] = []
    aliases: list[tuple[str, str]] = []
    for item in _listing(root, models):
        if _is_folder(item, root):
            entries += _folder(item, root, aliases)
        elif item.name.lower().endswith(EXTENSIONS):
            entries += _entry(item, root, "", "")
    entries = _name_all(entries, aliases)
    if aliases:
        entries += _resolve_aliases(aliases, entries)
    entries.sort(key=_by_name)
    return entries


def _by_name(entry: Entry) -> tuple[str, str]:
    return entry.name.lower(), entry.name


def _listing(root: str, models: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as items:
            return [item for item in items if _speakable(item.name)]
    except (FileNotFoundError, NotADirectoryError):
        raise ModelsDirMissing(models) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"the models directory {models} cannot be read: {reason}") from None


def _speakable(name: str) -> bool:
    # Bytes that are no UTF-8 arrive as lone surrogates, which isprintable() refuses.
    return name[0] != "." and name.isprintable()


def is_inside(path: str, root: str) -> bool:
    """Whether the real path of `path` lies below `root`, itself a real path."""
    return os.path.realpath(path).startswith(os.path.join(root, ""))


def _is_folder(item: os.DirEntry[str], root: str) -> bool:
    try:
        return item.is_dir() and (not item.is_symlink() or is_inside(item.path, root))
    except OSError:
        return False


def _entry(item: os.DirEntry[str], root: str, folder: str, modelfile: str) -> tuple[Entry, ...]:
    """None or one: nothing for what is no regular file, leads outside or has just vanished."""
    file, path = item.name, item.path
    if file.lower().startswith("mmproj"):
        return ()  # llama.cpp's name for vision encoders
    try:
        if item.is_symlink() and not is_inside(path, root):
            return ()
        if not item.is_file():
            return ()
        stat = item.stat()
    except OSError:
        return ()
    kind = file.rpartition(".")[2].lower()
    size, modified, mtime_ns = stat.st_size, stat.st_mtime, stat.st_mtime_ns
    return (Entry(file, file, path, size, modified, kind, folder, modelfile, mtime_ns, ""),)


def _folder(folder: os.DirEntry[str], root: str, aliases: list[tuple[str, str]]) -> Iterable[Entry]:
    """The models in one subfolder; without any, its Modelfile makes an alias."""
    files: list[os.DirEntry[str]] = []
    modelfile = ""
    try:
        with os.scandir(folder.path) as items:
            for item in items:
                if item.name.lower().endswith(EXTENSIONS) and _speakable(item.name):
                    files.append(item)
                elif item.name == MODELFILE:
                    modelfile = _modelfile(item, root)
    except OSError:
        return ()
    if not files and modelfile:
        aliases.append((folder.name, modelfile))
        return ()
    return [entry for item in files for entry in _entry(item, root, folder.name, modelfile)]


def _modelfile(item: os.DirEntry[str], root: str) -> str:
    try:
        inside = not item.is_symlink() or is_inside(item.path, root)
        return item.path if inside and item.is_file() else ""
    except OSError:
        return ""


# --- Names -------------------------------------------------------------------------------------


def _spellings(entry: Entry, alone: bool) -> list[str]:
    """The names an entry may get, best last; the first is its path, which nothing else shares."""
    stem = strip_extension(entry.file) or entry.file
    if not entry.folder:
        return [entry.file, stem]
    names = [f"{entry.folder}/{entry.file}", f"{entry.folder}/{stem}"]
    if alone:
        names += [entry.folder, strip_extension(entry.folder) or entry.folder]
    return names


def _name_all(entries: list[Entry], aliases: list[tuple[str, str]]) -> list[Entry]:
    """Give each entry the shortest spelling that no other one has, whatever the case.

    Where two want the same, both get a longer one: which it is must not depend on the order.
    """
    folders = Counter([entry.folder for entry in entries])
    choices = [_spellings(entry, folders[entry.folder] == 1) for entry in entries]
    while True:
        wanted = Counter([names[-1].lower() for names in choices])
        wanted.update(name.lower() for name, _ in aliases)
        shared = [names for names in choices if len(names) > 1 and wanted[names[-1].lower()] > 1]
        if not shared:
            return [
                Entry(names[-1], *entry[1:]) for entry, names in zip(entries, choices, strict=True)
            ]
        for names in shared:
            names.pop()


# --- Aliases -----------------------------------------------------------------------------------

_TRIPLE_QUOTED = r'(?s)""".*?(?:"""|\Z)'
_FROM = r"(?im)^[ \t]*FROM(?:[ \t]*=[ \t]*|[ \t]+)(.+?)[ \t\r]*$"


def read_from(modelfile: str) -> str:
    """What the Modelfile at this path is made FROM, as it is written there; "" where it cannot be read."""
    try:
        with open(modelfile, encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MODELFILE_LIMIT)
    except OSError:
        return ""
    found = re.search(_FROM, re.sub(_TRIPLE_QUOTED, "", text))
    return found[1].strip("\"'").strip() if found else ""


def _resolve_aliases(aliases: list[tuple[str, str]], entries: list[Entry]) -> Iterator[Entry]:
    """The aliases as entries, each with the file that its chain of FROMs ends at."""
    sources = {name.lower(): (name, read_from(path)) for name, path in aliases}
    index = index_entries(entries)
    for name, path in aliases:
        try:
            modified = os.stat(path).st_mtime
        except OSError:
            continue
        parent, target = _follow(name.lower(), sources, index, _ALIAS_DEPTH)
        if target is None:
            yield Entry(name, "", "", 0, modified, "", name, path, 0, parent)
        else:
            file, place, size, kind, mtime_ns = (
                target[1],
                target[2],
                target[3],
                target[5],
                target[8],
            )
            yield Entry(name, file, place, size, modified, kind, name, path, mtime_ns, parent)


def _follow(
    alias: str,
    sources: dict[str, tuple[str, str]],
    index: dict[str, list[Entry]],
    depth: int,
) -> tuple[str, Entry | None]:
    """What an alias is made from, and the model at the end of the chain, if there is exactly one."""
    source = sources[alias][1]
    wanted = source.lower().removeprefix("./").removesuffix(":latest")
    if wanted in sources and wanted != alias:
        target = _follow(wanted, sources, index, depth - 1)[1] if depth else None
        return sources[wanted][0], target
    found = index.get(wanted, ())
    return (found[0].name, found[0]) if len(found) == 1 else (source, None)


def index_entries(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Every spelling of every entry in lower case: name, file, stem, folder, folder/file, folder/stem."""
    index: dict[str, list[Entry]] = {}
    for entry in entries:
        for spelling in set(_keys(entry)):
            index.setdefault(spelling, []).append(entry)
    return index


def _keys(entry: Entry) -> Iterator[str]:
    yield entry.name.lower()
    if entry.parent or not entry.file:
        return  # an alias answers to its own name only
    file = entry.file.lower()
    stem = strip_extension(file)
    yield file
    yield stem
    if entry.folder:
        folder = entry.folder.lower()
        yield folder
        yield strip_extension(folder)
        yield f"{folder}/{file}"
        yield f"{folder}/{stem}"
