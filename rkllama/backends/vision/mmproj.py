"""How a model on llama.cpp sees: pictures are decoded here and go as small PNG files into the request, in
which its server has them encoded by the model's `mmproj` file.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from ...chat.messages import IMAGE_PLACE, broken_up
from ...errors import Unsupported
from ...models.vision.mmproj import Mmproj
from .given import Kept, check_places, with_names
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


class MmprojEyes:
    """Puts pictures into requests; used by several runs at a time."""

    def __init__(self, facts: Mmproj, props: dict[str, Any]) -> None:
        """`props` is what the server tells of itself."""
        self.facts = facts
        self._marker: str = props.get("media_marker") or _OLD_MARKER
        self.sees = bool((props.get("modalities") or {}).get("vision"))
        """Whether the server has loaded the encoder."""
        self._kept: Kept[str] = Kept(_MOST_KEPT, _MOST_PICTURES)
        """The pictures' files in base64."""

    def add(
        self, request: dict[str, Any], images: Sequence[bytes], cancelled: Callable[[], bool]
    ) -> bool:
        """Put pictures into the places that a request's prompt has for them; False: `cancelled`.

        Raises InvalidRequest for what is no picture, BackendMissing without Pillow.
        """
        text: str = request["prompt"]
        check_places(text, images)
        data: list[str] = []
        for image, name in with_names(images):
            if cancelled():
                return False
            data.append(self._encoded(image, name))
        harmless = text.replace(self._marker, broken_up(self._marker))
        text = harmless.replace(IMAGE_PLACE, self._marker)
        request["prompt"] = {"prompt_string": text, "multimodal_data": data}
        return True

    def _encoded(self, image: bytes, name: str) -> str:
        key = hashlib.sha256(image).digest()
        known = self._kept.get(key)
        if known is None:
            known = base64.b64encode(self._file(image, name)).decode()
            self._kept.put(key, known)
        return known

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
