"""What models that see need: on the NPU librknnrt, and an encoder beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...models.filename import parse_model_name
from ...models.labels import origins
from ...models.scan import Entry
from ...models.vision.encoder import OFF, find_beside, read_encoder, stamp_encoder
from ...rknn.library import FILE, look_for_library
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models, read_stored
from .libraries import find_defect


def check_image_library(subject: Subject) -> Iterator[Finding]:
    """Is librknnrt there, where a model has an encoder for pictures?"""
    models = read_models(subject).of_format("rkllm")
    seeing = [entry.name for entry in models if encoder_of(subject, entry)]
    if not seeing:
        return
    environ = {**os.environ, "RKLLAMA_HOME": subject.settings.home}
    path = look_for_library(subject.settings.rknn_lib, environ)
    defect = None if path is None else find_defect(path)
    if path is not None and defect is None:
        yield Finding(
            check="image-runtime",
            status="good",
            title="Image library",
            found=FILE,
            source=path,
        )
        return
    yield Finding(
        check="image-runtime",
        status="warning",
        title="Image library",
        found=f"no {FILE}" if path is None else f"{path} cannot be used: {defect}",
        good=FILE,
        advice=f"Without it {name_some(seeing)} cannot see pictures; text works.",
        cure=("rkllama runtime install rknn",),
        source=path or "/usr/lib",
    )


def check_image_encoders(subject: Subject) -> Iterator[Finding]:
    """Can each image encoder be used with its model, on this SoC or by llama.cpp?"""
    models = read_models(subject)
    for entry in (*models.of_format("rkllm"), *models.of_format("gguf")):
        path = encoder_of(subject, entry)
        stamp = None if path is None else stamp_encoder(path, subject.settings.rknn_lib)
        if path is None or stamp is None:
            continue
        on_cpu = entry.format == "gguf"
        usable = stamp._replace(library=path)
        info = read_encoder(usable, _platform(entry), cpu=on_cpu)
        if info.problem is not None:
            yield Finding(
                check="image-encoder",
                status="warning",
                title="Image encoders",
                found=f"{info.file} of {entry.name}: {info.problem}",
                advice=f"Until then {entry.name} cannot see pictures; text works.",
                source=path,
            )
        elif subject.model is not None:
            yield Finding(
                check="image-encoder",
                status="good",
                title="Image encoder",
                found=info.file + (f", tokens per picture: {info.tokens}" if info.tokens else ""),
                source=path,
            )


def encoder_of(subject: Subject, entry: Entry) -> str | None:
    """Return the path of the file that encodes pictures for a model: the one that its Modelfile names, else
    the one beside it.
    """
    if entry.modelfile:
        encoder = read_stored(subject, entry).encoder
        return None if encoder is None else encoder.path
    folder = os.path.dirname(entry.path)
    root = os.path.dirname(folder) if entry.folder else folder
    return find_beside(entry.path, root, _platform(entry))


def wants_none(subject: Subject, entry: Entry) -> bool:
    """Return whether a model's Modelfile says that it sees no pictures."""
    return bool(entry.modelfile) and read_stored(subject, entry).modelfile.vision_encoder == OFF


def _platform(entry: Entry) -> str | None:
    return parse_model_name(entry.file, *origins(entry)).platform


CHECKS: tuple[Check, ...] = (check_image_library,)
