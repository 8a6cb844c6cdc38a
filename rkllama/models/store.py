"""The models directory as everything else sees it: names, metadata, aliases, digests.

    models/qwen/…        see scan.py for what counts as a model and how it is named
    models/.rkllama/     what the store keeps for itself: the digests

Everything is read from disk when it is asked for, and kept as long as size and mtime stay the same:
files that come, go or change under a running server are noticed. A broken file beside a model never
hides the model; what was passed over stands in `StoredModel.notes`. Safe to use from many threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import (
    AmbiguousName,
    ModelIncomplete,
    ModelNotFound,
    ModelsDirMissing,
    RKLLamaError,
)
from ..settings.values import alias_key
from ..types import Alias, IncompleteDownload, ModelDetails, ModelInfo
from . import guide as bundled
from .catalog import Catalog, Watch, is_spelt
from .digests import DigestCache
from .filename import strip_extension
from .gguf import GGUFHeader
from .labels import pull_reference, total_size
from .metadata import ModelReader, StoredModel, show_metadata
from .modelfile import render_modelfile
from .scan import Entry, has_encoder

ALIAS_DEPTH = 8
"""How many aliases may be made one from another."""
_FRESH = 1.0
"""Seconds for which the whole directory counts as it was seen, for a name that is not spelt out."""


class Store:
    """The models in the directory `models`, which may be missing or a symlink."""

    def __init__(
        self,
        models: str,
        aliases: Mapping[str, str] | None = None,
        *,
        rknn_lib: str | None = None,
    ) -> None:
        """`aliases` are further names of models, from the settings. A model's own name comes before them.
        `rknn_lib` is a setting, too: whether a model sees depends on it.
        """
        self.models = models
        self._aliases = aliases or {}
        self._targets = {alias_key(name): target for name, target in self._aliases.items()}
        self._rknn_lib = rknn_lib
        self._lock = threading.RLock()
        self._catalog = Catalog(())
        self._open(os.path.realpath(models))

    def _open(self, root: str) -> None:
        self._root = root
        self._watch = Watch(self.models)
        self._listed: tuple[object, list[ModelInfo]] = (None, [])
        self._reader = ModelReader(root, self._rknn_lib)
        self._digests = DigestCache(root)

    # --- Looking -------------------------------------------------------------------------------

    def incomplete(self) -> list[IncompleteDownload]:
        """Return the downloads that are not complete, by name. Raises ModelsDirMissing."""
        with self._lock:
            self._scan()
            return [
                IncompleteDownload(
                    name=part.name,
                    file=part.file,
                    completed=part.size,
                    total=total_size(part),
                    modified=part.modified,
                )
                for part in self._parts()
            ]

    def passed_over(self) -> tuple[str, ...]:
        """Return what looks like a model and is none: name and reason. Raises ModelsDirMissing."""
        with self._lock:
            self._scan()
            return self._watch.passed_over

    def list(self) -> list[ModelInfo]:
        """Return the models by name. Raises ModelsDirMissing."""
        with self._lock:
            catalog = self._scan()
            self._digests.refresh()
            state = (catalog, self._digests.changes)
            if self._listed[0] != state:
                infos = [self._info(entry) for entry in catalog.entries if entry.format]
                self._listed = (state, infos)
            return self._listed[1].copy()

    def seeing(self) -> frozenset[str]:
        """Return the names of the models that see pictures here. Raises ModelsDirMissing."""
        with self._lock:
            entries = self._scan().entries
            return frozenset(
                entry.name
                for entry in entries
                if entry.format
                and (entry.modelfile or has_encoder(entry, self._watch.encoders))
                and "vision" in self._stored(entry).capabilities
            )

    def names(self) -> dict[str, str]:
        """Return the name of each model's file by its path; those that are made from others share a file."""
        with contextlib.suppress(ModelsDirMissing), self._lock:
            entries = self._scan().entries
            return {
                entry.path: entry.name for entry in entries if entry.format and not entry.parent
            }
        return {}

    def resolve(self, name: str, *, install: bool = True, prefix: bool = True) -> StoredModel:
        """Return the model that `name` means. Raises ModelNotFound, AmbiguousName.

        Unless `install`, nothing is written: the guide has to be in the directory. Unless `prefix`, the
        name has to be spelt out.
        """
        with self._lock:
            entry = self._unchanged(self.meant(name)) if prefix else None
            return self._stored(entry or self._find_or_install(name, install, prefix))

    def meant(self, name: str) -> str:
        """Return the name that an alias of the settings stands for; `name` itself where it is none."""
        with self._lock:
            for _ in self._targets:  # the settings have no circles
                target = self._targets.get(alias_key(name))
                if target is None or self._is_own(name):
                    break
                name = target
        return name

    def aliases(self) -> tuple[Alias, ...]:
        """Return the aliases of the settings, by name, each with its model or why it has none."""
        with self._lock:
            return tuple(self._alias(*pair) for pair in sorted(self._aliases.items()))

    def _alias(self, name: str, target: str) -> Alias:
        if self._is_own(name):
            problem = "a model has this name, and comes before the alias"
            return Alias(name=name, target=target, problem=problem)
        try:
            info = self.resolve(name, install=False).info
        except RKLLamaError as error:
            return Alias(name=name, target=target, problem=error.message)
        return Alias(name=name, target=target, info=info)

    def _is_own(self, name: str) -> bool:
        """Return whether a model has this name, by a look that is not old."""
        if bundled.means_guide(name):
            return True
        try:
            catalog = self._catalog if self._watch.age() <= _FRESH else self._scan()
        except ModelsDirMissing:
            return False
        return catalog.has(name)

    def _unchanged(self, name: str) -> Entry | None:
        """Return what `name` meant before, if that is as it was; else None.

        Every request passes here: check the stat results of one model, and of the aliases on the way to
        it, instead of all. A name that is not spelt out, such as a beginning, depends on all of them.
        """
        entry = self._catalog.known(name)
        if entry is None or not entry.format:
            return None
        if not is_spelt(name, entry) and self._watch.age() > _FRESH:
            return None
        chain = self._chain(entry)
        return entry if all(map(self._watch.is_current, chain)) else None

    def details(self, name: str) -> ModelDetails:
        """Return all that is known of a model. Raises ModelNotFound, AmbiguousName."""
        with self._lock:
            entry = self._find_or_install(name)
            model = self._stored(entry)
            content = self._reader.header(entry)
        header = content if isinstance(content, GGUFHeader) else None
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
            template_guess=model.template_guess,
            encoder=model.encoder,
            metadata=show_metadata(model.info, header),
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

    def _find_or_install(self, name: str, install: bool = True, prefix: bool = True) -> Entry:
        """Return the entry that `name` means, also as an alias of the settings, whose target may always be a
        beginning. With `install` the guide is put into the directory the first time that somebody wants it.
        """
        meant = self.meant(name)
        prefix = prefix or meant != name
        try:
            return self._find_guide(meant) if install else self._find(meant, prefix=prefix)
        except (ModelNotFound, AmbiguousName) as error:
            if meant != name:
                cure = "correct it, or pull that model."
                if isinstance(error, AmbiguousName):
                    cure = "have it stand for the full name of one of them."
                error.hint = f"'{name}' is an alias of '{meant}' in the settings: {cure}"
            raise

    def _find_guide(self, name: str) -> Entry:
        """Like `_find`; the guide comes into the directory."""
        if bundled.means_guide(name):
            try:
                entry = self._find(name, prefix=False)
            except ModelNotFound:
                bundled.install(self.models)
            else:
                bundled.give_eyes(entry.path)
                return entry
        return self._find(name)

    def _find(self, name: str, *, prefix: bool = True) -> Entry:
        """Return the entry that `name` means, with its model there."""
        entry = self._look_up(name, prefix=prefix)
        if not entry.format:
            raise ModelNotFound(entry.parent or name)
        return entry

    def _look_up(self, name: str, *, prefix: bool) -> Entry:
        """Return the entry that `name` means; the error tells of an incomplete download of that name, and of
        a file that is passed over.
        """
        try:
            return self._scan().find(name, prefix=prefix)
        except ModelsDirMissing:
            raise ModelNotFound(name[:100]) from None
        except ModelNotFound as error:
            part = self._incomplete(name, prefix=prefix)
            if part is not None:
                raise _incomplete_error(part) from None
            for text in self._watch.passed_over:
                if strip_extension(text.partition(": ")[0]) == strip_extension(name):
                    error.hint = f"{text}."
            raise

    def _parts(self) -> Iterator[Entry]:
        """Yield the incomplete downloads of the last scan, as large as they are now."""
        for part in self._watch.incomplete:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(part.path)
                yield part._replace(size=status.st_size, modified=status.st_mtime)

    def _incomplete(self, name: str, *, prefix: bool) -> Entry | None:
        """Return the one incomplete download that `name` means."""
        parts = Catalog(tuple(self._parts()))
        with contextlib.suppress(ModelNotFound, AmbiguousName):
            return parts.find(name, prefix=prefix)
        return None

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
        """Return the entry and what it is made from, down to the model itself."""
        chain = [entry]
        while chain[-1].parent and len(chain) <= ALIAS_DEPTH:
            parent = self._catalog.exact(chain[-1].parent)
            if parent is None:
                break
            chain.append(parent)
        return tuple(chain)

    # --- Digests -------------------------------------------------------------------------------

    def digest(self, info: ModelInfo, *, compute: bool = True) -> str:
        """Return the sha256 of a model's file in 64 hex digits; never waits for it.

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
        digest = self._digests.get(*key)
        if digest is None and compute:
            self._digests.want(*key)
        return digest or self._digests.provisional(*key)

    def put_digest(self, path: str, digest: str) -> None:
        """Keep the sha256 of a file that has just been verified."""
        self._digests.put(path, digest)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until no digest is being computed; return whether that happened within `timeout` seconds."""
        return self._digests.settle(timeout)

    def close(self) -> None:
        """Stop what runs in the background."""
        self._digests.close()


def _incomplete_error(part: Entry) -> ModelIncomplete:
    return ModelIncomplete(
        part.name,
        completed=part.size,
        total=total_size(part),
        reference=pull_reference(part),
    )
