"""What models that see need: librknnrt, and an encoder beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...models.filename import parse_model_name
from ...models.labels import origins
from ...models.scan import Entry
from ...models.vision.encoder import find_beside
from ...rknn.library import FILE, look_for_library
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models
from .libraries import find_defect, vendor_machine

_IMAGE_SOURCE = (
    "https://raw.githubusercontent.com/airockchip/rknn-llm/878f9361fd3afa7e167b7079918918f78d2c1c2a/"
    "examples/multimodal_model_demo/deploy/3rdparty/librknnrt/Linux/librknn_api"
)
"""Where the vendor has it, at the commit of release 1.3.0; one folder for each machine."""


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
        cure=(f"sudo curl -fL -o /usr/lib/{FILE} {_IMAGE_SOURCE}/{vendor_machine()}/{FILE}",),
        source=path or "/usr/lib",
    )


def encoder_beside(entry: Entry) -> str | None:
    """Return the path of the file beside a model that encodes pictures for the NPU."""
    folder = os.path.dirname(entry.path)
    root = os.path.dirname(folder) if entry.folder else folder
    return find_beside(entry.path, root, parse_model_name(entry.file, *origins(entry)).platform)


CHECKS: tuple[Check, ...] = (check_image_library,)
