"""Measures the guide's eyes in llama.cpp: `python -m tools.guide.measure_eyes [MMPROJ] [COUNT]`."""

from __future__ import annotations

import base64
import io
import json
import random
import secrets
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .evaluate import turn
from .eyes import EyesShape
from .gallery import encoded, fonts
from .other_pictures import draw_all
from .pictures import draw
from .resample import squared
from .scenes import Scene, random_scene
from .train import PRODUCT

EYES = PRODUCT.with_name("guide-mmproj.gguf")
HELD_OUT_SEED = 2000
OTHER_SEED = 11
_SIDE = EyesShape().side
QUESTION = "What is in the picture?"


class Seeing:
    """The guide with its eyes in llama.cpp, through xllamacpp's own port."""

    def __init__(self, eyes: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.mmproj.path = str(PRODUCT), str(eyes)
        params.mmproj_use_gpu, params.n_ctx, params.n_parallel = False, 1024, 1
        params.cpuparams.n_threads = 1
        params.warmup, params.n_gpu_layers, params.verbosity = False, 0, -1
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        self._server = xllamacpp.Server(params)
        self._marker = self._ask("/props")["media_marker"]

    def say(self, picture: bytes, question: str = QUESTION) -> str:
        """The likeliest answer to a question after a picture (a file's bytes)."""
        text = turn("user", f"{self._marker}{question}") + "<|im_start|>assistant\n"
        # As RKLLama hands it on: llama.cpp would stretch it.
        square = encoded(Image.fromarray(squared(Image.open(io.BytesIO(picture)), _SIDE)))
        prompt = {
            "prompt_string": text,
            "multimodal_data": [base64.b64encode(square).decode()],
        }
        body = {"prompt": prompt, "n_predict": 24, "temperature": 0.0}
        return str(self._ask("/completion", body)["content"])

    def _ask(self, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        request = urllib.request.Request(
            f"{self._server.listening_address}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            told: dict[str, object] = json.load(answer)
        return told


def held_out(count: int) -> list[tuple[bytes, Scene]]:
    """Pictures as they are trained on, from another seed, as PNG files."""
    rng = random.Random(HELD_OUT_SEED)
    scenes = [random_scene(rng) for _ in range(count)]
    files = fonts()
    return [(encoded(draw(scene, rng, files)), scene) for scene in scenes]


def report(name: str, seeing: Seeing, pictures: Sequence[tuple[bytes, Scene]]) -> None:
    """Print how many captions are right to the last character, by kind of scene."""
    right, asked = Counter[str](), Counter[str]()
    for picture, scene in pictures:
        kind = "digits" if scene.digit is not None else "one" if scene.count == 1 else "several"
        well = seeing.say(picture) == scene.caption
        for key in (kind, "all"):
            asked[key] += 1
            right[key] += well
    figures = (f"{k} {100 * right[k] / asked[k]:.1f} % of {asked[k]}" for k in sorted(asked))
    print(f"{name}: {', '.join(figures)}")


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else EYES
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    seeing = Seeing(path)
    report("held out", seeing, held_out(count))
    report("drawn by the other program", seeing, draw_all(100, OTHER_SEED))


if __name__ == "__main__":
    main()
