"""What models that see need: librknnrt, and an encoder beside the model."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...board.sysroot import system_path
from ...clib.finding import SYSTEM_FOLDERS
from ...models.scan import Entry
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models
from .libraries import find_defect, vendor_machine

_IMAGE_LIBRARY = "librknnrt.so"
_IMAGE_SOURCE = (
    "https://raw.githubusercontent.com/airockchip/rknn-llm/878f9361fd3afa7e167b7079918918f78d2c1c2a/"
    "examples/multimodal_model_demo/deploy/3rdparty/librknnrt/Linux/librknn_api"
)
"""Where the vendor has it, at the commit of release 1.3.0; one folder for each machine."""


def check_image_library(subject: Subject) -> Iterator[Finding]:
    """Is librknnrt there, where a model has an encoder for pictures?"""
    seeing = [
        entry.name for entry in read_models(subject).of_format("rkllm") if encoders_beside(entry)
    ]
    if not seeing:
        return
    paths = [os.path.join(subject.settings.home, "lib", _IMAGE_LIBRARY)]
    paths += (system_path(f"{folder}/{_IMAGE_LIBRARY}") for folder in SYSTEM_FOLDERS)
    path = next((path for path in paths if os.path.isfile(path)), None)
    defect = None if path is None else find_defect(path)
    if path is not None and defect is None:
        yield Finding(
            check="image-runtime",
            status="good",
            title="Image library",
            found=_IMAGE_LIBRARY,
            source=path,
        )
        return
    yield Finding(
        check="image-runtime",
        status="warning",
        title="Image library",
        found=f"no {_IMAGE_LIBRARY}" if path is None else f"{path} cannot be used: {defect}",
        good=_IMAGE_LIBRARY,
        advice=f"Without it {name_some(seeing)} cannot see pictures; text works.",
        cure=(
            f"sudo curl -fL -o /usr/lib/{_IMAGE_LIBRARY} {_IMAGE_SOURCE}/{vendor_machine()}/{_IMAGE_LIBRARY}",
        ),
        source=path or "/usr/lib",
    )


def encoders_beside(entry: Entry) -> list[str]:
    """Return the names of the files beside a model that encode pictures for the NPU."""
    if not entry.folder:
        stem = os.path.splitext(entry.path)[0]
        return [f"{os.path.basename(stem)}.rknn"] if os.path.isfile(f"{stem}.rknn") else []
    try:
        names = os.listdir(os.path.dirname(entry.path))
    except OSError:
        return []
    return sorted(name for name in names if name.lower().endswith(".rknn"))


CHECKS: tuple[Check, ...] = (check_image_library,)
