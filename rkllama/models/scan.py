"""What is in the models directory, read as fast as the file system allows.

    models/qwen.rkllm                a model, named "qwen"
    models/qwen/any-file.rkllm       a model, named "qwen"
    models/qwen/{a,b}.rkllm          two models, "qwen/a" and "qwen/b"
    models/tuned/Modelfile           an alias: another name (and other defaults) of a model

Hidden files and vision encoders are not models, and neither are incomplete downloads (FILE.part, see
hub/partial.py), which stand in `Scan.incomplete`. A symlink is followed,
wherever it leads, if the directory's owner or root made it: nothing that a client of the server can do
makes one. Names that cannot be printed or encoded are left out: nothing could name them. What is passed
over stands in `Scan.passed_over`.

`rkllama list` imports this module: hence no dataclass, no pathlib.
"""

from __future__ import annotations

import os
import re
from collections import Counter, namedtuple

from ..errors import ConfigError, ModelsDirMissing
from .filename import EXTENSIONS, is_mmproj, strip_extension, without_registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODELFILE = "Modelfile"
ENCODER = ".rknn"
PART = ".part"
"""What the name of an incomplete download ends with; FILE.part.json beside it tells of what it is a part."""
_PARTS = tuple(f"{extension}{PART}" for extension in EXTENSIONS)
_MODELFILE_LIMIT = 1 << 20
_ALIAS_DEPTH = 8
SETTLED_NS = 2_000_000_000
"""A path that changed less than this before it was read may change again under the same mtime: some
file systems count in steps of two seconds."""


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
            "folder_mtime_ns",
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
    """Path of the Modelfile that belongs to it, "" where there is none. In a folder of several models
    it is everyone's, unless its FROM names one of them."""
    mtime_ns: int
    """Of the model's file."""
    parent: str
    """For an alias: the name of what it is made from, as in its Modelfile where that is not there."""
    folder_mtime_ns: int
    """Of the folder around the file, to see whether something beside it changed; 0 where not asked."""


def scan(models: str) -> list[Entry]:
    """Return the models and the aliases that lead to one, by name. Raises ModelsDirMissing, ConfigError."""
    return [entry for entry in Scan(models).entries() if entry.format]


def has_encoder(entry: Entry, encoders: set[str]) -> bool:
    """Return whether an image encoder may belong to a model; `encoders` are those of a Scan."""
    folder, file = os.path.split(entry.path)
    stem = os.path.join(folder, strip_extension(file))
    return bool(encoders) and not encoders.isdisjoint(
        (folder, stem, os.path.join(folder, _first_word(file)))
    )


def _first_word(file: str) -> str:
    """Return what the names of a model's file and of its encoder for llama.cpp both begin with."""
    match = re.search("[a-z0-9]+", file.lower().replace("mmproj", ""))
    return match[0] if match else ""


def open_nonblocking(path: str, flags: int) -> int:
    """Return an opener for `open`: a pipe that lies where a file is expected keeps nobody waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def is_inside(path: str, root: str) -> bool:
    """Return whether the real path of `path` lies below `root`, itself a real path."""
    return os.path.realpath(path).startswith(os.path.join(root, ""))


def may_follow(path: str, root: str) -> bool:
    """Return whether `path`, a normal path below `root`, leads only where the owner of `root` wants."""
    if not path.startswith(os.path.join(root, "")):
        return False
    while path != root:
        if os.path.islink(path) and _fault_of_link(path, root):
            return False
        path = os.path.dirname(path)
    return True


def _fault_of_link(link: str, root: str) -> str:
    """Return why a symlink is not followed, "" for one that is."""
    if os.lstat(link).st_uid not in (0, os.stat(root).st_uid):
        return "it is a link that neither root nor the owner of the models directory made"
    target = os.path.realpath(link)
    if not os.path.exists(target):
        return f"it is a link to {_shown(target)}, which is not there"
    if os.path.join(root, "").startswith(os.path.join(target, "")):
        return f"it is a link to {_shown(target)}, in which it lies itself"
    return ""


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)


class Scan:
    """One look at the directory; what there is besides entries is known once they are.

    With `seen`, what the answer depends on is noted there: paths and how they were (see catalog.py).
    """

    def __init__(self, models: str, seen: dict[str, PathStamp] | None = None) -> None:
        self._models = models
        self.root = os.path.realpath(models)
        self._seen = seen
        self._aliases: list[tuple[str, str]] = []
        self.passed_over: list[str] = []
        """What looks like a model and is none: name and reason."""
        self.incomplete: list[Entry] = []
        """Downloads that are not complete, as the models that they will be; path and size are the part's."""
        self.encoders: set[str] = set()
        """Where image encoders lie: their folders; in the directory itself, how their paths begin."""

    def entries(self) -> list[Entry]:
        """Return all entries by name, with the aliases whose model is missing (format "")."""
        entries: list[Entry] = []
        for item in self._listing():
            if not self._may_follow(item):
                continue
            if item.name.lower().endswith(EXTENSIONS) and self._is_file(item):
                entries += self._entry(item)
            elif item.name.lower().endswith(ENCODER):
                self.encoders.add(item.path[: -len(ENCODER)])
            elif self._is_folder(item):
                entries += self._folder(item)
        aliases = [(name, path, *read_from(path)) for name, path in self._aliases]
        entries = _without_parts(entries, aliases)
        entries = _name_all(entries, self._aliases)
        if self.incomplete:
            self.incomplete = _name_incomplete(self.incomplete, entries, self._aliases)
        if aliases:
            entries += _resolve_aliases(aliases, entries)
        entries.sort(key=_by_name)
        return entries

    def _listing(self) -> list[os.DirEntry[str]]:
        self._note(self.root)
        try:
            with os.scandir(self.root) as items:
                return [item for item in items if self._is_speakable(item)]
        except (FileNotFoundError, NotADirectoryError):
            raise ModelsDirMissing(self._models) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"the models directory {self._models} cannot be read: {reason}"
            ) from None

    def _folder(self, folder: os.DirEntry[str]) -> Iterable[Entry]:
        """Return the models in one subfolder; without any, its Modelfile makes an alias."""
        files: list[os.DirEntry[str]] = []
        parts: list[os.DirEntry[str]] = []
        modelfile = ""
        folder_mtime_ns = self._note(folder.path)
        try:
            with os.scandir(folder.path) as items:
                for item in items:
                    if item.name.lower().endswith(EXTENSIONS) and self._is_speakable(item):
                        files.append(item)
                    elif item.name == MODELFILE and self._may_follow(item) and self._is_file(item):
                        modelfile = item.path
                    elif item.name.lower().endswith(ENCODER):
                        self.encoders.add(folder.path)
                    elif item.name.lower().endswith(_PARTS) and _speakable(item.name):
                        parts.append(item)
        except OSError as error:
            self._pass_over(folder.path, f"it cannot be read: {error.strerror}")
            return ()
        meant, parts_of_it = self._meant(modelfile, [file.name for file in files])
        files = [file for file in files if file.name not in parts_of_it]
        entries: list[Entry] = []
        for file in files:
            own = modelfile if meant in ("", file.name) else ""
            if self._may_follow(file) and self._is_file(file):
                entries += self._entry(file, folder.name, own, folder_mtime_ns)
        for part in parts:
            if part.name[: -len(PART)] not in [file.name for file in files]:
                self._add_part(part, folder.name)
        if modelfile and not entries:
            self._note(modelfile)
            self._aliases.append((folder.name, modelfile))
        elif not entries and folder.is_symlink():
            self._pass_over(folder.path, "it is a link to a folder without a model")
        return entries

    def _add_part(self, part: os.DirEntry[str], folder: str) -> None:
        if not part.is_file(follow_symlinks=False):
            return
        for entry in self._entry(part, folder):
            file = part.name[: -len(PART)]
            extension = file.rpartition(".")[2].lower()
            self.incomplete.append(entry._replace(file=file, format=extension))
        if self._seen is not None:
            self._seen.pop(part.path, None)  # it grows all the time, and changes no model

    def _meant(self, modelfile: str, files: list[str]) -> tuple[str, list[str]]:
        """Return which of a folder's files its Modelfile is for ("" for all of them), and which are its
        adapter or its encoder and no models. A file alone is looked at if its name says so.
        """
        if not modelfile or (len(files) < 2 and not re.search("(?i)lora|adapter", "".join(files))):
            return "", []
        self._note(modelfile)
        source, beside = read_from(modelfile)
        names = {file.lower(): file for file in files}
        wanted = [os.path.normpath(name).lower() for name in beside]
        others = [names[name] for name in wanted if name in names]
        meant = names.get(source.removeprefix("./").lower(), "")
        return ("" if len(files) - len(others) < 2 else meant), others

    def _entry(
        self, item: os.DirEntry[str], folder: str = "", modelfile: str = "", around: int = 0
    ) -> tuple[Entry, ...]:
        """Yield the file as an entry, or nothing: for a vision encoder, and for what has just vanished.

        It is named for its file, which is what most are called in the end.
        """
        file = item.name
        if is_mmproj(file.removesuffix(PART)):
            self._add_mmproj(item, folder)
            return ()
        try:
            status = item.stat()
        except OSError:
            self._note(item.path)
            return ()
        if self._seen is not None:
            self._seen[item.path] = stamp_of(status)
        stem, _, extension = file.rpartition(".")
        entry = Entry(
            name=stem or file,
            file=file,
            path=item.path,
            size=status.st_size,
            modified=status.st_mtime,
            format=extension.lower(),
            folder=folder,
            modelfile=modelfile,
            mtime_ns=status.st_mtime_ns,
            parent="",
            folder_mtime_ns=around,
        )
        return (entry,)

    def _add_mmproj(self, item: os.DirEntry[str], folder: str) -> None:
        around = os.path.dirname(item.path)
        self.encoders.add(around if folder else os.path.join(around, _first_word(item.name)))

    @staticmethod
    def _is_folder(item: os.DirEntry[str]) -> bool:
        try:
            return item.is_dir()
        except OSError:
            return False

    def _is_file(self, item: os.DirEntry[str]) -> bool:
        """Return whether it is one; what only has the name of a model's file, and is no folder, is told."""
        try:
            if item.is_file():
                return True
            if not item.is_dir():
                self._pass_over(item.path, "it is not a file")
        except OSError as error:
            self._pass_over(item.path, f"it cannot be read: {error.strerror}")
        return False

    def _may_follow(self, item: os.DirEntry[str]) -> bool:
        if not item.is_symlink():
            return True
        self._note(item.path)
        try:
            fault = _fault_of_link(item.path, self.root)
        except OSError as error:
            fault = f"it is a link that cannot be read: {error.strerror}"
        if fault:
            self._pass_over(item.path, fault)
        return not fault

    def _is_speakable(self, item: os.DirEntry[str]) -> bool:
        if _speakable(item.name):
            return True
        if item.name[0] != "." and item.name.lower().endswith(EXTENSIONS):
            self._pass_over(item.path, "its name has characters that cannot be printed")
        return False

    def _pass_over(self, path: str, reason: str) -> None:
        self.passed_over.append(f"{_shown(os.path.relpath(path, self.root))}: {reason}")

    def _note(self, path: str) -> int:
        """Return the mtime_ns that was noted."""
        if self._seen is None:
            return 0
        stamp = self._seen[path] = stamp_at(path)
        return stamp[0]


PathStamp = tuple[int, int, int, int]
"""mtime_ns, ctime_ns (for permissions), size and inode: what changes when a file or a folder does."""


def stamp_of(status: os.stat_result) -> PathStamp:
    """Return the stamp of a file whose status is known."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def stamp_at(path: str) -> PathStamp:
    """Return the stamp of what is at `path` now, or where the link there leads; zeros for nothing."""
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return 0, 0, 0, 0


def _speakable(name: str) -> bool:
    # Bytes that are not UTF-8 arrive as lone surrogates, which isprintable() refuses.
    return name[0] != "." and name.isprintable()


def _by_name(entry: Entry) -> tuple[str, str]:
    return entry.name.lower(), entry.name


# --- Names -------------------------------------------------------------------------------------


def _spellings(entry: Entry, alone: bool) -> list[str]:
    """Return the names an entry may get, best last; the first is its path, which nothing else shares."""
    stem = strip_extension(entry.file) or entry.file
    if not entry.folder:
        return [entry.file, stem]
    names = [f"{entry.folder}/{entry.file}", f"{entry.folder}/{stem}"]
    if alone:
        names.append(entry.folder)
        short = strip_extension(entry.folder)
        if short and short != entry.folder:
            names.append(short)
    return names


def _name_all(entries: list[Entry], aliases: list[tuple[str, str]]) -> list[Entry]:
    """Give each entry the shortest spelling that no other one has, whatever the case.

    Where two want the same, both get a longer one: which it is must not depend on the order.
    """
    folders = Counter([entry.folder for entry in entries])
    choices = [_spellings(entry, folders[entry.folder] == 1) for entry in entries]
    aliased = [name.lower() for name, _ in aliases]
    while True:
        counts = Counter(aliased)
        counts.update([names[-1].lower() for names in choices])
        if len(counts) == len(choices) + len(aliased):
            break
        shared = [names for names in choices if len(names) > 1 and counts[names[-1].lower()] > 1]
        if not shared:
            break
        for names in shared:
            names.pop()
    named = zip(entries, choices, strict=True)
    return [
        entry if entry.name == names[-1] else entry._replace(name=names[-1])
        for entry, names in named
    ]


def _name_incomplete(
    parts: list[Entry], entries: list[Entry], aliases: list[tuple[str, str]]
) -> list[Entry]:
    """Give each incomplete download the name that its model will have, unless something else has it."""
    taken = {entry.name.lower() for entry in entries} | {name.lower() for name, _ in aliases}
    named = []
    for part in parts:
        choices = _spellings(part, alone=True)
        name = next((name for name in choices[::-1] if name.lower() not in taken), choices[0])
        taken.add(name.lower())
        named.append(part._replace(name=name))
    named.sort(key=_by_name)
    return named


# --- Aliases -----------------------------------------------------------------------------------

_TRIPLE_QUOTED = r'(?s)""".*?(?:"""|\Z)'
_FROM = r"(?im)^[ \t]*FROM(?:[ \t]*=[ \t]*|[ \t]+)(.+?)[ \t\r]*$"


_BESIDE = ("ADAPTER", "VISION_ENCODER")
"""What names another file than the model's."""


def read_from(modelfile: str) -> tuple[str, tuple[str, ...]]:
    """Return what the Modelfile at this path is made FROM, and its ADAPTER and VISION_ENCODER, as far as it
    has any, as they are written there; "" where it cannot be read.
    """
    try:
        with open(modelfile, encoding="utf-8", errors="replace", opener=open_nonblocking) as stream:
            text = stream.read(_MODELFILE_LIMIT)
    except OSError:
        return "", ()
    text = re.sub(_TRIPLE_QUOTED, "", text)
    upper = text.upper()
    named = [_value(_FROM.replace("FROM", key), text) for key in _BESIDE if key in upper]
    return _value(_FROM, text), tuple(filter(None, named))


def _value(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1].strip("\"'").strip() if match else ""


_Alias = tuple[str, str, str, tuple[str, ...]]
"""Name, path of the Modelfile, its FROM, and its ADAPTER and VISION_ENCODER."""


def _without_parts(entries: list[Entry], aliases: list[_Alias]) -> list[Entry]:
    """Return the entries that no alias has as its ADAPTER or VISION_ENCODER."""
    parts = {
        os.path.normpath(os.path.join(os.path.dirname(path), part))
        for _, path, _, beside in aliases
        for part in beside
    }
    if not parts:
        return entries
    return [entry for entry in entries if entry.path not in parts]


def _resolve_aliases(aliases: list[_Alias], entries: list[Entry]) -> Iterator[Entry]:
    """Yield the aliases as entries, each with the file that its chain of FROMs ends at."""
    sources = {name.lower(): (name, source) for name, _, source, _ in aliases}
    index = index_entries(entries)
    for name, path, _, _ in aliases:
        try:
            modified = os.stat(path).st_mtime
        except OSError:
            continue
        parent, target = _follow(name.lower(), sources, index, _ALIAS_DEPTH)
        if target is None:
            target = _NOTHING
        yield target._replace(
            name=name, modified=modified, folder=name, modelfile=path, parent=parent
        )


_NOTHING = Entry(
    name="",
    file="",
    path="",
    size=0,
    modified=0.0,
    format="",
    folder="",
    modelfile="",
    mtime_ns=0,
    parent="",
    folder_mtime_ns=0,
)
"""What an alias leads to whose model is not there."""


def _follow(
    alias: str,
    sources: dict[str, tuple[str, str]],
    index: dict[str, list[Entry]],
    depth: int,
) -> tuple[str, Entry | None]:
    """Return what an alias is made from, and the model at the end of the chain, if there is exactly one."""
    source = sources[alias][1]
    name = without_registry(source.lower()).removeprefix("./").removesuffix(":latest")
    if name in sources and name != alias:
        target = _follow(name, sources, index, depth - 1)[1] if depth else None
        return sources[name][0], target
    matches = index.get(name, ())
    return (matches[0].name, matches[0]) if len(matches) == 1 else (source, None)


def index_entries(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return every spelling of every entry in lower case: name, file, stem, folder, folder/file,
    folder/stem.
    """
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
