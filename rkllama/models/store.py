"""The models directory as everything else sees it: names, metadata, aliases, digests, removal.

    models/qwen/…        see scan.py for what counts as a model and how it is named
    models/.rkllama/     what the store keeps for itself: the digests

Everything is read from disk when it is asked for, and kept as long as size and mtime stay the same:
files that come, go or change under a running server are noticed. A broken file beside a model never
hides the model; what was passed over stands in `StoredModel.notes`. Safe to use from many threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import replace

from ..errors import InvalidRequest, ModelNotFound, ModelsDirMissing, RKLLamaError
from ..types import ModelDetails, ModelInfo
from . import guide as bundled
from .catalog import Catalog, Watch
from .digests import DigestCache
from .filename import strip_extension
from .gguf import GGUFHeader
from .labels import PULL_RECORD
from .metadata import ModelReader, StoredModel, describe
from .modelfile import SIZE_LIMIT, Modelfile, ModelfileError, parse_modelfile, render_modelfile
from .scan import MODELFILE, Entry
from .sidecars import NAMES as SIDECARS

_ALIAS_DEPTH = 8
_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OWN_FILES = (
    *SIDECARS,
    MODELFILE,
    PULL_RECORD,
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""What lies in a model's folder for the model's sake and goes with it."""


class Store:
    """The models in the directory `models`, which may be missing or a symlink."""

    def __init__(self, models: str) -> None:
        self.models = models
        self._lock = threading.RLock()
        self._catalog = Catalog(())
        self._open(os.path.realpath(models))

    def _open(self, root: str) -> None:
        self._root = root
        self._watch = Watch(self.models)
        self._listed: tuple[object, list[ModelInfo]] = (None, [])
        self._reader = ModelReader(root)
        self._digests = DigestCache(root)

    # --- Looking -------------------------------------------------------------------------------

    def list(self) -> list[ModelInfo]:
        """The models by name. Raises ModelsDirMissing."""
        with self._lock:
            catalog = self._scan()
            self._digests.refresh()
            state = (catalog, self._digests.changes)
            if self._listed[0] != state:
                infos = [self._info(entry) for entry in catalog.entries if entry.format]
                self._listed = (state, infos)
            return self._listed[1].copy()

    def resolve(self, name: str) -> StoredModel:
        """The model that `name` means. Raises ModelNotFound, AmbiguousName."""
        with self._lock:
            entry = self._catalog.exact(name)
            # Every request comes by here: one model's stats instead of everyone's.
            if entry is None or entry.parent or not self._watch.is_current(entry):
                entry = self._find_or_install(name)
            return self._stored(entry)

    def details(self, name: str) -> ModelDetails:
        """All that is known of a model. Raises ModelNotFound, AmbiguousName."""
        with self._lock:
            entry = self._find_or_install(name)
            model = self._stored(entry)
            found = self._reader.header(entry)
        header = found if isinstance(found, GGUFHeader) else None
        modelfile = model.modelfile
        return ModelDetails(
            info=model.info,
            system=model.system,
            template=modelfile.template or (model.template.source if model.template else None),
            parameters=modelfile.parameters,
            messages=model.messages,
            license=modelfile.license or (header.license if header else None),
            modelfile=render_modelfile(replace(modelfile, source=model.parent or entry.file)),
            parent=model.parent,
            capabilities=model.capabilities,
            notes=model.notes,
            metadata=describe(model.info, header),
        )

    def _scan(self) -> Catalog:
        root = os.path.realpath(self.models)
        if root != self._root:  # the directory is a symlink, and leads elsewhere by now
            self._digests.close()
            self._open(root)
        entries = self._watch.entries()
        if entries is not self._catalog.entries:
            self._catalog = Catalog(entries)
        return self._catalog

    def _find_or_install(self, name: str) -> Entry:
        """Like `_find`; the guide is put into the directory the first time that somebody wants it."""
        if bundled.means_guide(name):
            try:
                return self._find(name, prefix=False)
            except ModelNotFound:
                bundled.install(self.models)
        return self._find(name)

    def _find(self, name: str, *, prefix: bool = True) -> Entry:
        """The entry that `name` means, with its model there."""
        try:
            entry = self._scan().find(name, prefix=prefix)
        except ModelsDirMissing:
            raise ModelNotFound(name[:100]) from None
        if not entry.format:
            raise ModelNotFound(entry.parent or name)
        return entry

    def _info(self, entry: Entry) -> ModelInfo:
        info = self._reader.info(entry)
        digest = self._digests.get(entry.path, entry.size, entry.mtime_ns)
        return info if digest is None else replace(info, digest=digest)

    def _stored(self, entry: Entry) -> StoredModel:
        model = self._reader.stored(self._chain(entry))
        digest = self._digests.get(entry.path, entry.size, entry.mtime_ns)
        if digest is None:
            return model
        return replace(model, info=replace(model.info, digest=digest))

    def _chain(self, entry: Entry) -> tuple[Entry, ...]:
        """The entry and what it is made from, down to the model itself."""
        chain = [entry]
        while chain[-1].parent and len(chain) <= _ALIAS_DEPTH:
            parent = self._catalog.exact(chain[-1].parent)
            if parent is None:
                break
            chain.append(parent)
        return tuple(chain)

    # --- Digests -------------------------------------------------------------------------------

    def digest(self, info: ModelInfo, *, compute: bool = True) -> str:
        """The sha256 of a model's file in 64 hex digits; never waits for it.

        Until it has been computed (in the background, with `compute`), 64 digits that stand for the file
        as it is now.
        """
        if info.digest is not None:
            return info.digest
        try:
            status = os.stat(info.path)
        except OSError:
            return self._digests.provisional(info.path, info.size, 0)
        key = (info.path, status.st_size, status.st_mtime_ns)
        known = self._digests.get(*key)
        if known is None and compute:
            self._digests.want(*key)
        return known or self._digests.provisional(*key)

    def put_digest(self, path: str, digest: str) -> None:
        """Keep the sha256 of a file that has just been verified."""
        self._digests.put(path, digest)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until no digest is being computed; whether that came about in `timeout` seconds."""
        return self._digests.settle(timeout)

    def close(self) -> None:
        """Stop what runs in the background."""
        self._digests.close()

    # --- Removing ------------------------------------------------------------------------------

    def removable(self, name: str) -> ModelInfo:
        """What `remove(name)` would delete, and raises what that would raise. `path` is what goes: of an
        alias its Modelfile, so nobody takes it for the loaded model.
        """
        with self._lock:
            return self._removable(name)[1]

    def remove(self, name: str) -> ModelInfo:
        """Delete a model's file, what lies beside it for its sake, and its folder if that is empty then;
        of an alias only the alias. Answers what was deleted.

        The beginning of a name is not enough here. Raises ModelNotFound, AmbiguousName, and
        InvalidRequest where aliases are made from the model.
        """
        with self._lock:
            entry, info = self._removable(name)
            try:
                self._delete(entry)
            except OSError as error:
                raise RKLLamaError(
                    f"'{entry.name}' cannot be removed: {error.strerror}",
                    hint="Check who owns the files.",
                ) from None
            return info

    def _removable(self, name: str) -> tuple[Entry, ModelInfo]:
        try:
            entry = self._scan().find(name, prefix=False)
        except ModelsDirMissing:
            raise ModelNotFound(name[:100]) from None
        users = [other.name for other in self._catalog.entries if _made_from(other, entry)]
        if users:
            raise InvalidRequest(
                f"'{entry.name}' is what {', '.join(users)} is made from",
                param="model",
                hint=f"Remove {' and '.join(users)} first.",
            )
        info = self._info(entry) if entry.format else _missing(entry)
        return entry, replace(info, path=entry.modelfile) if entry.parent else info

    def _delete(self, entry: Entry) -> None:
        if entry.parent or not entry.format:
            os.unlink(entry.modelfile)
            _remove_if_empty(os.path.dirname(entry.modelfile))
            return
        folder, file = os.path.split(entry.path)
        if os.path.islink(folder):
            os.unlink(folder)  # the link was the model's name; what it leads to has its own
            return
        os.unlink(entry.path)
        self._digests.forget(entry.path)
        stem = strip_extension(file)
        own = [f"{file}.part", f"{file}.part.json", *(f"{stem}.{name}" for name in SIDECARS)]
        if folder != self._root and not self._others(entry):
            own += _OWN_FILES
        for name in own:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                os.unlink(os.path.join(folder, name))
        if folder != self._root:
            _remove_if_empty(folder)

    def _others(self, entry: Entry) -> bool:
        """Whether another model lies in the same folder."""
        folder = os.path.dirname(entry.path)
        return any(
            other.path != entry.path and os.path.dirname(other.path) == folder
            for other in self._catalog.entries
        )

    # --- Making --------------------------------------------------------------------------------

    def copy(self, source: str, destination: str) -> None:
        """Make `destination` another name of `source`; it takes no room on disk.

        Raises ModelNotFound, AmbiguousName, and InvalidRequest for a name that is taken or unusable.
        """
        with self._lock:
            entry = self._find_or_install(source)
            name = self._free_name(destination, entry)
            if name == entry.name:
                raise InvalidRequest(f"'{name}' is '{entry.name}' already", param="destination")
            modelfile = Modelfile(source=entry.name)
            if entry.parent:
                modelfile = replace(self._stored(entry).modelfile, source=entry.parent)
            self._write(name, modelfile)

    def create(self, name: str, modelfile: str) -> ModelInfo:
        """Make the model `name` out of the one that the Modelfile's FROM names.

        Under the name of that model itself, the Modelfile becomes that model's own. Raises
        ModelfileError, ModelNotFound, AmbiguousName, InvalidRequest.
        """
        parsed = parse_modelfile(modelfile)
        if parsed.source is None:
            raise InvalidRequest(
                "the Modelfile has no FROM",
                param="modelfile",
                hint="Let its first line name the model to build on: FROM qwen2.5-1.5b",
            )
        with self._lock:
            entry = self._find_or_install(_model_name(parsed.source, self._root))
            made = self._free_name(name, entry)
            if made != entry.name and len(self._chain(entry)) > _ALIAS_DEPTH:
                raise InvalidRequest(
                    f"'{entry.name}' is made from {_ALIAS_DEPTH} others already",
                    param="from",
                    hint="Make it from one of those.",
                )
            if made == entry.name and not entry.parent:
                self._write_beside(entry, parsed)
            else:
                base = entry.parent if made == entry.name else entry.name
                self._write(made, replace(parsed, source=base))
            return self._info(self._find(made))

    def new_name(self, name: str) -> str:
        """`name` as that of a new model, which may take the place of an alias. Raises InvalidRequest."""
        with self._lock:
            self._scan()
            return self._free_name(name, None)

    def _free_name(self, name: str, source: Entry | None) -> str:
        """The name for something new, which may be that of an alias, or of `source` itself, but of
        nothing that `source` is made from: both would lead nowhere.
        """
        wanted = name.strip().removesuffix(":latest").replace(":", "-")
        if not _NEW_NAME.fullmatch(wanted):
            raise InvalidRequest(
                f"'{name[:100]}' cannot be a model's name",
                param="name",
                hint="Use letters, digits, '.', '_' and '-', and begin with a letter or digit.",
            )
        for entry in self._catalog.entries:
            if entry.name.lower() == wanted.lower() and (entry.parent or entry == source):
                if source is not None and entry in self._chain(source)[1:]:
                    raise InvalidRequest(
                        f"'{source.name}' is made from '{entry.name}' itself",
                        param="name",
                        hint="Choose another name.",
                    )
                return entry.name
        if os.path.lexists(os.path.join(self._root, wanted)) or self._is_taken(wanted):
            raise InvalidRequest(
                f"'{wanted}' exists already", param="name", hint="Choose another name."
            )
        return wanted

    def _is_taken(self, name: str) -> bool:
        return any(entry.name.lower() == name.lower() for entry in self._catalog.entries)

    def _write(self, name: str, modelfile: Modelfile) -> None:
        folder = os.path.join(self._root, name)
        self._write_file(folder, modelfile)

    def _write_beside(self, entry: Entry, modelfile: Modelfile) -> None:
        """Make a Modelfile the model's own, which takes a folder of its own."""
        folder = os.path.dirname(entry.path)
        if folder == self._root or self._others(entry):
            raise InvalidRequest(
                f"'{entry.name}' has no folder of its own for a Modelfile",
                param="name",
                hint="Choose another name for what you make.",
            )
        self._write_file(folder, replace(modelfile, source=entry.file))

    def _write_file(self, folder: str, modelfile: Modelfile) -> None:
        path = os.path.join(folder, MODELFILE)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
        content = render_modelfile(modelfile).encode()
        if len(content) > SIZE_LIMIT:
            raise ModelfileError(f"more than {SIZE_LIMIT} bytes")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as stream:
                stream.write(content)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise RKLLamaError(f"{path} cannot be written: {error.strerror}") from None


def _model_name(source: str, root: str) -> str:
    """A FROM as a name: ./file, or a path into the models directory."""
    name = source.removeprefix("./")
    path = os.path.realpath(os.path.expanduser(name)) if name[:1] in "/~" else ""
    if path.startswith(os.path.join(root, "")):
        return path[len(root) + 1 :]
    return name


def _made_from(other: Entry, entry: Entry) -> bool:
    return bool(other.parent) and other.parent == entry.name and other != entry


def _missing(entry: Entry) -> ModelInfo:
    """An alias whose model is gone, as far as anything can be said of it."""
    return ModelInfo(
        name=entry.name,
        file=entry.parent,
        path=entry.modelfile,
        format="rkllm",
        size=0,
        modified=entry.modified,
    )


def _remove_if_empty(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)
