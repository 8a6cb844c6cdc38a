"""How a model on llama.cpp sees: pictures are decoded here and go as small PNG files into the request, in
which its server has them encoded by the model's `mmproj` file.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ...chat.messages import IMAGE_PLACE
from ...errors import RuntimeFailed, Unsupported
from ...models.vision.mmproj import Mmproj
from .picture import fitted, square_file

_LONGEST = 1344
"""Pixels of a picture's longer side: three pieces of 448, as encoders cut large pictures. More of them cost
minutes on the CPU of a board."""
_MOST_KEPT = 32 << 20
"""Characters of pictures that are kept, so that a second question about one does not decode it again."""
_MOST_PICTURES = 64
"""That are kept, however small."""
_OLD_MARKER = "<__media__>"
"""What stands for a picture in prompts for servers before 2026; later ones make it up when they start."""
_BREAK = "\u200d"
"""Zero width joiner: makes ordinary text of a marker that a user has written."""


class MmprojEyes:
    """Puts pictures into requests; used by several runs at a time."""

    def __init__(self, facts: Mmproj, props: dict[str, Any]) -> None:
        """`props` is what the server tells of itself."""
        self.facts = facts
        self._marker: str = props.get("media_marker") or _OLD_MARKER
        self.sees = bool((props.get("modalities") or {}).get("vision"))
        """Whether the server has loaded the encoder."""
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        """By the picture's digest, its file in base64, longest unused first."""
        self._lock = threading.Lock()

    def add(
        self, request: dict[str, Any], images: Sequence[bytes], cancelled: Callable[[], bool]
    ) -> bool:
        """Put pictures into the places that a request's prompt has for them; False: `cancelled`.

        Raises InvalidRequest for what is no picture, BackendMissing without Pillow.
        """
        text: str = request["prompt"]
        if text.count(IMAGE_PLACE) != len(images):
            raise RuntimeFailed(
                f"the prompt has {text.count(IMAGE_PLACE)} places for {len(images)} pictures"
            )
        data: list[str] = []
        for number, image in enumerate(images):
            if cancelled():
                return False
            name = "the picture" if len(images) == 1 else f"picture {number + 1} of {len(images)}"
            data.append(self._encoded(image, name))
        harmless = text.replace(self._marker, f"{self._marker[0]}{_BREAK}{self._marker[1:]}")
        text = harmless.replace(IMAGE_PLACE, self._marker)
        request["prompt"] = {"prompt_string": text, "multimodal_data": data}
        return True

    def _encoded(self, image: bytes, name: str) -> str:
        key = hashlib.sha256(image).digest()
        with self._lock:
            known = self._kept.pop(key, None)
        if known is None:
            known = base64.b64encode(self._file(image, name)).decode()
        with self._lock:
            self._kept[key] = known
            while len(self._kept) > 1 and self._keeps_too_much:
                self._kept.popitem(last=False)
        return known

    @property
    def _keeps_too_much(self) -> bool:
        return len(self._kept) > _MOST_PICTURES or sum(map(len, self._kept.values())) > _MOST_KEPT

    def _file(self, image: bytes, name: str) -> bytes:
        """Return the picture as llama.cpp has least to do with it: it scales coarsely."""
        if self.facts.pads and self.facts.side is not None:
            return square_file(image, self.facts.side, name)
        return fitted(image, _LONGEST, name)


def not_loaded(encoder: str, reason: str) -> str:
    """Say why a model does not see."""
    return (
        f"{os.path.basename(encoder)} could not be loaded, so this model sees no pictures: {reason}"
    )


def need_eyes(eyes: MmprojEyes | None, blind: str | None) -> MmprojEyes:
    """Return what sees. Raises Unsupported for a model without an encoder, or one that is `blind` for a
    reason.
    """
    if eyes is None or not eyes.sees:
        raise Unsupported(blind or "this model has no image encoder", param="images")
    return eyes
