"""The guide with an encoder that knows eight plain colours: what it says depends on the pixels alone."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rkllama.models.guide import FILE

pytestmark = pytest.mark.integration

EYES = Path(__file__).parent / "data" / "colours-mmproj.gguf"


@pytest.fixture(scope="module")
def say() -> Callable[[Image.Image], str]:
    """What the guide says to a picture, in llama.cpp."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.mmproj.path, params.mmproj_use_gpu = FILE, str(EYES), False
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 1024, 1, 1
    params.warmup, params.n_gpu_layers, params.verbosity = False, 0, -1
    params.api_keys = ["key"]
    server = xllamacpp.Server(params)

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}{path}", data, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    marker = ask("/props")["media_marker"]

    def answer(picture: Image.Image) -> str:
        file = io.BytesIO()
        picture.save(file, "PNG")
        question = f"<|im_start|>user\n{marker}What is in the picture?<|im_end|>\n"
        prompt = {
            "prompt_string": f"{question}<|im_start|>assistant\n",
            "multimodal_data": [base64.b64encode(file.getvalue()).decode()],
        }
        told = ask("/completion", {"prompt": prompt, "n_predict": 16, "temperature": 0})
        return str(told["content"])

    return answer


@pytest.mark.parametrize("side", [32, 200])
@pytest.mark.parametrize(
    ("colour", "caption"),
    [
        ((230, 20, 20), "a red square"),
        ((20, 160, 40), "a green square"),
        ((20, 40, 220), "a blue square"),
        ((245, 235, 20), "a yellow square"),
        ((245, 130, 10), "an orange square"),
        ((130, 10, 150), "a purple square"),
        ((0, 0, 0), "a black square"),
        ((255, 255, 255), "a white square"),
    ],
)
def test_the_colour_is_said(
    say: Callable[[Image.Image], str], colour: tuple[int, int, int], caption: str, side: int
) -> None:
    assert say(Image.new("RGB", (side, side), colour)) == caption
