"""What changes the models directory: copies and other names, models made of Modelfiles, removal."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace

from ..errors import AmbiguousName, InvalidRequest, ModelIncomplete, ModelNotFound, RKLLamaError
from ..files import not_written, write_file
from ..types import ModelInfo
from .filename import strip_extension, without_registry
from .labels import PULL_RECORD
from .metadata import find_adapter
from .modelfile import SIZE_LIMIT, Modelfile, ModelfileError, parse_modelfile, render_modelfile
from .reference import is_new_name
from .scan import MODELFILE, PART, Entry
from .sidecars import NAMES as SIDECARS
from .store import ALIAS_DEPTH, Store
from .uploads import CREATED, REPLACED
from .vision.encoder import OFF, find_beside

_OWN_FILES = (
    *SIDECARS,
    MODELFILE,
    PULL_RECORD,
    CREATED,
    REPLACED,
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""The files in a model's folder that belong to the model and are deleted with it."""


_ADAPTERS = "adapter"
"""The folder beside a Modelfile for a LoRA that `create` was given: no models are looked for there."""


class WritableStore(Store):
    """A store whose models can be copied, made and removed."""

    # --- Removing ------------------------------------------------------------------------------

    def removable(self, name: str) -> ModelInfo:
        """Return what `remove(name)` would delete; raise what that would raise. `path` is what goes: of
        an alias its Modelfile, so nobody takes it for the loaded model.
        """
        with self._lock:
            return self._removable(name)[1]

    def remove(self, name: str) -> ModelInfo:
        """Delete a model's file, what lies beside it for its sake, and its folder if that is empty then;
        of an alias only the alias. Returns what was deleted.

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
        self._refuse_alias(name, "Remove it there, or name the model itself.")
        entry = self._incomplete_or_entry(name)
        users = [other.name for other in self._catalog.entries if _made_from(other, entry)]
        if users:
            raise InvalidRequest(
                f"'{entry.name}' is still needed by {', '.join(users)}",
                param="model",
                hint=f"Remove {' and '.join(users)} first.",
            )
        folder = os.path.dirname(entry.path)
        if not entry.parent and os.path.islink(folder) and self._others(entry):
            raise InvalidRequest(
                f"'{entry.name}' lies behind the link {folder}, with other models",
                param="model",
                hint=f"Remove the link, or the file in {os.path.realpath(folder)}, yourself.",
            )
        info = self._info(entry) if entry.format else _missing(entry)
        return entry, replace(info, path=entry.modelfile) if entry.parent else info

    def _incomplete_or_entry(self, name: str) -> Entry:
        try:
            return self._look_up(name, prefix=False)
        except ModelIncomplete:
            part = self._incomplete(name, prefix=False)
            assert part is not None, "the error tells of it"
            return part
        except ModelNotFound as error:
            if names := self._beginning_with(name):
                error.hint = f"Deleting takes the full name: {' or '.join(names)}."
                error.candidates = names
            raise

    def _beginning_with(self, name: str) -> tuple[str, ...]:
        """Return the full names of what `name` may be the beginning of."""
        try:
            return (self._look_up(name, prefix=True).name,)
        except ModelIncomplete as error:
            return (error.name,)
        except AmbiguousName as error:
            return error.candidates
        except ModelNotFound:
            return ()

    def _delete(self, entry: Entry) -> None:
        adapters = self._own_adapters(entry)
        if entry.parent or not entry.format:
            folder = os.path.dirname(entry.modelfile)
            os.unlink(folder if os.path.islink(folder) else entry.modelfile)
            _remove_adapters(adapters)
            _remove_if_empty(folder)
            return
        folder, file = os.path.dirname(entry.path), entry.file
        if os.path.islink(folder):
            os.unlink(folder)  # the link was the model's name; what it leads to stays
            return
        encoders = self._own_encoders(entry)
        self._delete_file(entry)
        stem = strip_extension(file)
        own = [f"{file}{PART}", f"{file}{PART}.json", *(f"{stem}.{name}" for name in SIDECARS)]
        if folder == self._root:
            own += encoders
        elif not self._others(entry):
            own += _OWN_FILES
            own += encoders
        for name in own:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                os.unlink(os.path.join(folder, name))
        if folder != self._root:
            _remove_adapters(adapters)
            _remove_if_empty(folder)

    def _delete_file(self, entry: Entry) -> None:
        if entry.path.endswith(PART):
            _delete_part(entry)
        else:
            os.unlink(entry.path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(os.path.dirname(entry.path), CREATED))
        self._digests.forget(entry.path)

    def _own_adapters(self, entry: Entry) -> list[str]:
        """Return the LoRAs that `create` moved into a model's folder, unless another model uses them."""
        folder = os.path.join(os.path.dirname(entry.modelfile), _ADAPTERS)
        if not entry.modelfile or not os.path.isdir(folder):
            return []
        others = [other for other in self._catalog.entries if other != entry and other.modelfile]
        used = {self._stored(other).lora for other in others if other.format}
        files = [os.path.realpath(item.path) for item in os.scandir(folder)]
        return [path for path in files if path not in used and os.path.dirname(path) == folder]

    def _own_encoders(self, entry: Entry) -> list[str]:
        """Return the name of the image encoder in a model's folder, unless another model uses it."""
        path = find_beside(entry.path, self._root, self._info(entry).platform)
        if path is None:
            return []
        folder = os.path.dirname(entry.path)
        others = [
            other
            for other in self._catalog.entries
            if other.format
            and other.path != entry.path
            and (other.modelfile or (os.path.dirname(other.path) == folder == self._root))
        ]
        encoders = [self._stored(other).encoder for other in others]
        return (
            []
            if path in [one.path for one in encoders if one is not None]
            else [os.path.basename(path)]
        )

    def _others(self, entry: Entry) -> bool:
        """Return whether another model lies in the same folder."""
        folder = os.path.dirname(entry.path)
        return any(
            other.path != entry.path and os.path.dirname(other.path) == folder
            for other in self._catalog.entries
        )

    # --- Making --------------------------------------------------------------------------------

    def copy(self, source: str, destination: str, *, literal: bool = False) -> None:
        """Make `destination` another name of `source`; it takes no room on disk. A ":" in it becomes a "-",
        unless it is to be taken literally.

        Raises ModelNotFound, AmbiguousName, and InvalidRequest for a name that is taken or unusable.
        """
        with self._lock:
            entry = self._find_or_install(source)
            name = self._free_name(destination, entry, literal=literal)
            if name == entry.name:
                raise InvalidRequest(
                    f"'{name}' already refers to '{entry.name}'", param="destination"
                )
            modelfile = Modelfile(source=entry.name)
            if entry.parent:
                modelfile = replace(self._stored(entry).modelfile, source=entry.parent)
            self._write(name, modelfile)

    def create(
        self, name: str, modelfile: str, adapter: tuple[str, str] | None = None
    ) -> ModelInfo:
        """Make the model `name` out of the one that the Modelfile's FROM names.

        Under the name of that model itself, the Modelfile becomes that model's own. `adapter` is a LoRA's
        name and the path from where it is moved into the new model's folder. Raises ModelfileError,
        ModelNotFound, AmbiguousName, InvalidRequest, RKLLamaError.
        """
        parsed = parse_modelfile(modelfile)
        if parsed.source is None:
            raise InvalidRequest(
                "the Modelfile has no FROM",
                param="modelfile",
                hint="Name the model to build on in its first line: FROM qwen2.5-1.5b",
            )
        with self._lock:
            entry = self._find_or_install(_model_name(parsed.source, self._root))
            old = self._replaceable(name)
            if old in self._chain(entry):
                old = None
            made = self._free_name(name, entry) if old is None else old.name
            if made != entry.name and len(self._chain(entry)) > ALIAS_DEPTH:
                raise InvalidRequest(
                    f"'{entry.name}' is made from {ALIAS_DEPTH} others already",
                    param="from",
                    hint="Make it from one of those.",
                )
            beside = made == entry.name and not entry.parent
            folder = os.path.dirname(entry.path) if beside else os.path.join(self._root, made)
            with _moved(adapter, folder) as own:
                parsed = replace(
                    parsed,
                    adapter=own or self._named(parsed.adapter, folder, "ADAPTER"),
                    vision_encoder=self._named(parsed.vision_encoder, folder, "VISION_ENCODER"),
                )
                if beside:
                    self._write_beside(entry, parsed)
                else:
                    base = entry.parent if made == entry.name else entry.name
                    self._write(made, replace(parsed, source=base))
            if old is not None:
                self._delete_file(old)
            return self._info(self._find(made))

    def _named(self, name: str | None, folder: str, key: str) -> str | None:
        """Return the file that `key` names as a Modelfile in `folder` has it: one of the models directory.

        Without it the model would silently be another one. Raises InvalidRequest.
        """
        if name is None or (key == "VISION_ENCODER" and name == OFF):
            return name
        for base in (folder, self._root):
            path = find_adapter(name, base, self._root)
            if path is not None:
                return os.path.relpath(path, folder)
        raise InvalidRequest(
            f"the {key} {name[:200]!r} is not in the models directory",
            param="modelfile",
            hint=f"Copy it to {self._root} and name it from there.",
        )

    def new_name(self, name: str) -> tuple[str, str | None]:
        """Return `name` as that of a model that is made of a file, and the path of the file that it replaces.

        It may take the place of an alias, and of a model that was made of a file. Raises InvalidRequest.
        """
        with self._lock:
            self._scan()
            old = self._replaceable(name)
            free = self._free_name(name, None) if old is None else old.name
            _check_no_link(os.path.join(self._root, free))
            return free, None if old is None else old.path

    def _replaceable(self, name: str) -> Entry | None:
        """Return the model `name` if `create` made it of a file: neither a pull nor the user put it there."""
        spelling = _spelling(name).lower()
        for entry in self._catalog.entries:
            folder = os.path.join(self._root, entry.folder)
            if (
                entry.folder
                and entry.name.lower() == spelling == entry.folder.lower()
                and not entry.parent
                and not os.path.islink(folder)
                and os.path.exists(os.path.join(folder, CREATED))
            ):
                return entry
        return None

    def _refuse_alias(self, name: str, hint: str) -> None:
        """Raise InvalidRequest for a name that is an alias of the settings, and no model's own."""
        if (meant := self.meant(name)) != name:
            raise InvalidRequest(
                f"'{name}' is an alias of '{meant}' in the settings", param="name", hint=hint
            )

    def _free_name(self, name: str, source: Entry | None, *, literal: bool = False) -> str:
        """Return the name for something new, which may be that of an alias, or of `source` itself, but of
        nothing that `source` is made from: both would lead nowhere.
        """
        self._refuse_alias(name, "Choose another name, or remove the alias.")
        spelling = _spelling(name, literal=literal)
        if not is_new_name(spelling):
            raise InvalidRequest(
                f"'{name[:100]}' is not a valid model name",
                param="name",
                hint="Use letters, digits, '.', '_' and '-', and begin with a letter or digit.",
            )
        for entry in self._catalog.entries:
            if entry.name.lower() == spelling.lower() and (entry.parent or entry == source):
                if source is not None and entry in self._chain(source)[1:]:
                    raise InvalidRequest(
                        f"'{source.name}' is made from '{entry.name}' itself",
                        param="name",
                        hint="Choose another name.",
                    )
                return entry.name
        if os.path.lexists(os.path.join(self._root, spelling)) or self._is_taken(spelling):
            raise InvalidRequest(
                f"'{spelling}' already exists", param="name", hint="Choose another name."
            )
        return spelling

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
                hint="Choose another name for the new model.",
            )
        self._write_file(folder, replace(modelfile, source=entry.file))

    def _write_file(self, folder: str, modelfile: Modelfile) -> None:
        path = os.path.join(folder, MODELFILE)
        content = render_modelfile(modelfile).encode()
        if len(content) > SIZE_LIMIT:
            raise ModelfileError(f"it has more than {SIZE_LIMIT} bytes")
        _check_no_link(folder)
        try:
            os.makedirs(folder, exist_ok=True)
            write_file(path, content)
        except OSError as error:
            raise not_written(error, path) from None


def _delete_part(part: Entry) -> None:
    """Delete an incomplete download and its note, which is also its lock. Raises InvalidRequest."""
    note = f"{part.path}.json"
    lock = os.open(note, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(part.path)
        os.unlink(note)
    except BlockingIOError:
        raise InvalidRequest(
            f"'{part.name}' is being downloaded", param="model", hint="Stop its download first."
        ) from None
    finally:
        os.close(lock)


def _check_no_link(folder: str) -> None:
    """Raise InvalidRequest where what is written into a folder would be outside the models directory."""
    if os.path.islink(folder):
        raise InvalidRequest(
            f"{folder} is a link, and nothing is written behind links",
            param="name",
            hint="Choose another name, or remove the link first.",
        )


def _spelling(name: str, *, literal: bool = False) -> str:
    spelling = without_registry(name.strip()).removesuffix(":latest")
    return spelling if literal else spelling.replace(":", "-")


@contextlib.contextmanager
def _moved(adapter: tuple[str, str] | None, folder: str) -> Iterator[str | None]:
    """Move an adapter's file into the folder of its model, and back where that is not made.

    Yields the path as a Modelfile there has it.
    """
    if adapter is None:
        yield None
        return
    name, upload = adapter
    path = os.path.join(folder, _ADAPTERS, name)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(upload, path)
    except OSError as error:
        raise not_written(error, path) from None
    try:
        yield os.path.join(_ADAPTERS, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.replace(path, upload)
            _remove_adapters([path])
            os.rmdir(folder)
        raise


def _remove_adapters(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
        _remove_if_empty(os.path.dirname(path))


def _model_name(source: str, root: str) -> str:
    """Return a FROM as a name: ./file, or a path into the models directory."""
    name = source.removeprefix("./")
    path = os.path.realpath(os.path.expanduser(name)) if name[:1] in "/~" else ""
    if path.startswith(os.path.join(root, "")):
        return path[len(root) + 1 :]
    return name


def _made_from(other: Entry, entry: Entry) -> bool:
    return bool(other.parent) and other.parent == entry.name and other != entry


def _missing(entry: Entry) -> ModelInfo:
    """Return an alias whose model is gone, as far as anything can be said of it."""
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
