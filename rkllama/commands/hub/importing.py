"""`rkllama import`: a model file of this machine into the models directory, with what lies beside it."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import AmbiguousName, InvalidRequest, RKLLamaError, Unsupported
from ..common import settings_of

if TYPE_CHECKING:
    from ...models.authoring import WritableStore
    from ...types import PullProgress

_LARGEST_SIDECAR = 20 << 20


def import_model(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|FOLDER", help="A .rkllm or .gguf file, or its folder.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The model's name; by default its file's."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Do not copy the file: link to where it lies.")
    ] = False,
) -> None:
    """Take in a model file of this machine, with what lies beside it."""
    from ...console.progress import shown_progress
    from ...files import make_directory
    from ...models.authoring import WritableStore
    from ...models.filename import strip_extension

    settings = settings_of(context)
    models = settings.models
    path = _model_in(source)
    _check(path)
    make_directory(models)
    store = WritableStore(models, settings.aliases)
    try:
        free, _ = store.new_name(name or strip_extension(os.path.basename(path)))
        # What is there is not replaced, not even an alias or a model that `create` made.
        if os.path.lexists(os.path.join(models, free)):
            raise InvalidRequest(f"'{free}' already exists", hint="Choose another name.")
        with shown_progress(f"Reading {os.path.basename(path)}…") as report:
            _bring(store, path, free, report, link=link)
    finally:
        store.close()
    sys.stderr.write(f"Done. Try it: rkllama run {free}\n")


def _model_in(source: str) -> str:
    """Return the path of the model that a file or folder is. Raises InvalidRequest, AmbiguousName."""
    from ...models.filename import EXTENSIONS
    from ...models.reference import is_model

    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        try:
            names = sorted(name for name in os.listdir(path) if is_model(name))
        except OSError as error:
            raise InvalidRequest(f"{source} cannot be read: {error.strerror}") from None
        if len(names) > 1:
            raise AmbiguousName(source, tuple(os.path.join(source, name) for name in names))
        if not names:
            raise InvalidRequest(f"{source} contains no .rkllm or .gguf file")
        return os.path.join(path, names[0])
    if not os.path.isfile(path):
        raise InvalidRequest(f"{source} is not there", hint="Name a .rkllm or .gguf file.")
    if not path.lower().endswith(EXTENSIONS):
        raise InvalidRequest(f"{source} is not a .rkllm or .gguf file")
    return path


def _check(path: str) -> None:
    """Raise Unsupported or InvalidRequest for a file that no runtime could load."""
    from ...models.gguf import read_header
    from ...models.reference import SPLIT_GGUF
    from ...models.vision.mmproj import check_is_model
    from ...rkllm.model_file import what_else

    file = os.path.basename(path)
    if SPLIT_GGUF.search(file):
        raise Unsupported(f"{file} is one part of a model that is split over several files")
    if file.lower().endswith(".gguf"):
        check_is_model(file, read_header(path, brief=True))
        return
    try:
        other = what_else(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    if other is not None:
        raise InvalidRequest(f"{path} is no model but {other.message}", hint=other.hint)
    _warn_of_platform(file)


def _warn_of_platform(file: str) -> None:
    from ...board.soc import read_soc
    from ...console.output import print_note
    from ...models.filename import parse_platform

    platform, soc = parse_platform(file), read_soc()
    if platform and soc and platform != soc.lower().removesuffix("s"):
        print_note(f"{file} is for {platform.upper()}, and this is an {soc}.")


# --- Bringing ----------------------------------------------------------------------------------


def _bring(
    store: "WritableStore",
    path: str,
    name: str,
    report: "Callable[[PullProgress], object]",
    *,
    link: bool,
) -> None:
    """Make the model `name` of the file at `path`: all of it, or nothing."""
    file, folder = os.path.basename(path), os.path.join(store.models, name)
    try:
        if link:
            os.makedirs(folder)
            os.symlink(path, os.path.join(folder, file))
            _bring_neighbours(path, folder, link=True)
            return
        digest = _upload(store.models, path, report)
        from ...models.uploads import Blobs

        with Blobs(store.models).placed([(file, digest)], name, replaceable=False) as (placed, _):
            _bring_neighbours(path, folder, link=False)
        store.put_digest(placed, digest)
    except BaseException as error:
        _remove(folder)
        if isinstance(error, OSError):
            raise RKLLamaError(
                f"{error.filename or folder} cannot be written: {error.strerror}"
            ) from None
        raise


def _upload(models: str, path: str, report: "Callable[[PullProgress], object]") -> str:
    """Copy a file to where models are made of it; a kill leaves nothing that looks like a model."""
    from ...models.uploads import Source, Upload

    source = Source(path, report)
    with contextlib.closing(Upload(models, source.size)) as upload:
        blocks = source.blocks("copying")
        while upload.failure is None and (block := next(blocks, None)) is not None:
            upload.append(block)
        return upload.keep()


def _bring_neighbours(path: str, folder: str, *, link: bool) -> None:
    """Bring the small files and the encoder that belong to the model at `path`."""
    from ...models.filename import parse_platform, strip_extension
    from ...models.sidecars import NAMES
    from ...models.vision.choice import find_encoder

    around, file = os.path.split(path)
    stem = strip_extension(file)
    for name in NAMES:
        for candidate in (f"{stem}.{name}", name):
            if _copy_small(os.path.join(around, candidate), os.path.join(folder, name)):
                break
    _bring_modelfile(around, file, folder)
    names = os.listdir(around)
    encoder = find_encoder(file, names, parse_platform(file))
    if encoder is not None:
        _bring_file(os.path.join(around, encoder), os.path.join(folder, encoder), link=link)


def _bring_modelfile(around: str, file: str, folder: str) -> None:
    """Bring the Modelfile, unless it is another model's; a FROM with a path leads to the new place."""
    from dataclasses import replace

    from ...console.output import print_note
    from ...files import write_file
    from ...models.modelfile import SIZE_LIMIT, ModelfileError, parse_foreign, render_modelfile
    from ...models.scan import MODELFILE

    try:
        with open(os.path.join(around, MODELFILE), encoding="utf-8") as stream:
            text = stream.read(SIZE_LIMIT)
        parsed, left_out = parse_foreign(text)
    except (OSError, UnicodeDecodeError):
        return
    except ModelfileError as error:
        sys.stderr.write(f"Passed over the Modelfile: {error.message}.\n")
        return
    source = (parsed.source or file).removeprefix("./")
    if os.path.basename(source) != file:
        return
    if left_out is not None:
        print_note(left_out)
    if source != file or left_out is not None:
        text = render_modelfile(replace(parsed, source=file))
    write_file(os.path.join(folder, MODELFILE), text.encode())


def _copy_small(source: str, target: str) -> bool:
    from ...files import write_file

    try:
        with open(source, "rb") as stream:
            content = stream.read(_LARGEST_SIDECAR + 1)
    except OSError:
        return False
    if len(content) > _LARGEST_SIDECAR:
        return False
    write_file(target, content)
    return True


def _bring_file(source: str, target: str, *, link: bool) -> None:
    from ...files import copy_file

    if link:
        os.symlink(source, target)
    else:
        copy_file(source, target)


def _remove(folder: str) -> None:
    """Remove what an import that failed has made."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
