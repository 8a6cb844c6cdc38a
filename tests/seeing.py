"""Models that see, for tests: files for both virtual libraries, and what they answer for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.vision.picture import square
from tests.backends.vision.pictures import GREEN, RED, encoded, halves
from tests.virtual_npu import library, write_model
from tests.virtual_rknn import describe, write_encoder
from tests.virtual_rknn import library as encoder_library

PHOTO, OTHER = encoded(halves()), encoded(halves((90, 50), GREEN, RED), "JPEG", quality=95)
FILE = "Qwen2.5-VL-3B-Instruct.rkllm"


def told(*images: bytes) -> str:
    """What the model answers where it has been shown these pictures, with encoders of the usual size."""
    return "\n".join(
        f"picture {number}: {describe(square(image, 28, 28, ''), 28, 28)}"
        for number, image in enumerate(images, 1)
    )


def put_model(
    models: Path,
    name: str,
    trace: Path,
    *,
    encoder: dict[str, Any] | None,
    file: str = FILE,
    **model: Any,
) -> None:
    """Put a model into a folder of its own, with an encoder beside it unless that is None."""
    values = {"mode": "picture", "embd_size": 16, "trace": trace, "trace_prompt": 1, **model}
    write_model(models / name / file, **values)
    if encoder is not None:
        write_encoder(models / name / "vision.rknn", trace=trace, **encoder)


def use_libraries(patch: pytest.MonkeyPatch, version: str = "1.3.0") -> None:
    """Have both virtual libraries found, that of language models in this release."""
    patch.setenv("RKLLAMA_RKLLM_LIB", library(version))
    patch.setenv("RKLLAMA_RKNN_LIB", encoder_library())
