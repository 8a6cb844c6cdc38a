"""What models that see need: on the NPU librknnrt, and an encoder beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...models.filename import parse_model_name
from ...models.labels import origins
from ...models.scan import Entry
from ...models.vision.encoder import find_beside, read_encoder, stamp_encoder
from ...rknn.library import FILE, look_for_library
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models
from .libraries import find_defect


def check_image_library(subject: Subject) -> Iterator[Finding]:
    """Is librknnrt there, where a model has an encoder for pictures?"""
    seeing = [
        entry.name for entry in read_models(subject).of_format("rkllm") if encoder_beside(entry)
    ]
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
        path = encoder_beside(entry)
        stamp = None if path is None else stamp_encoder(path, subject.settings.rknn_lib)
        if path is None or stamp is None:
            continue
        on_cpu = entry.format == "gguf"
        usable = stamp._replace(library=path)
        problem = read_encoder(usable, _platform(entry), cpu=on_cpu).problem
        if problem is not None:
            yield Finding(
                check="image-encoder",
                status="warning",
                title="Image encoders",
                found=f"{os.path.basename(path)} of {entry.name}: {problem}",
                advice=f"Until then {entry.name} cannot see pictures; text works.",
                source=path,
            )


def encoder_beside(entry: Entry) -> str | None:
    """Return the path of the file beside a model that encodes pictures for it."""
    folder = os.path.dirname(entry.path)
    root = os.path.dirname(folder) if entry.folder else folder
    return find_beside(entry.path, root, _platform(entry))


def _platform(entry: Entry) -> str | None:
    return parse_model_name(entry.file, *origins(entry)).platform


CHECKS: tuple[Check, ...] = (check_image_library, check_image_encoders)
