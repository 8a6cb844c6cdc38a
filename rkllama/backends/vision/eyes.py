"""What a model on the NPU sees with: its image encoder, and what that has made of the last pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from ...chat.messages import IMAGE_PLACE, broken_up
from ...errors import LoadFailed
from ...rkllm.inputs import MultimodalInput, Pictures
from ...rknn.encoder import Encoder
from ...rknn.file import read_file
from .given import Kept, check_places, with_names
from .markers import Markers
from .picture import square

_MOST_KEPT = 64 << 20
"""Bytes of embeddings: ten pictures of Qwen3-VL 2B, a hundred of a small model."""
_TAG = "<image>"
"""Where the runtime puts a picture, for every family of models."""


class Eyes:
    """An image encoder, which is loaded with the first picture and kept until `close`."""

    def __init__(
        self, path: str, markers: Markers, *, soc: str | None, library: str | None = None
    ) -> None:
        self.path = path
        self.markers = markers
        self._soc = soc
        self._library = library
        self._encoder: Encoder | None = None
        self.last: tuple[bytes, ...] = ()
        """What the pictures that were seen last are known by: equal digests mean equal bytes."""
        self._kept: Kept[bytes] = Kept(_MOST_KEPT)
        """The pictures' embeddings."""

    @property
    def tokens(self) -> int | None:
        """Tokens that a picture takes; None while only the encoder itself could tell."""
        if self._encoder is not None:
            return self._encoder.shape.tokens
        try:
            return read_file(self.path).tokens
        except LoadFailed:
            return None

    def open(self) -> int:
        """Load the encoder, unless it is; return the tokens of a picture. Raises LoadFailed."""
        if self._encoder is None:
            self._encoder = Encoder(self.path, soc=self._soc, library=self._library)
        return self._encoder.shape.tokens

    def see(
        self,
        prompt: str,
        images: Sequence[bytes],
        *,
        think: bool | None,
        cancelled: Callable[[], bool],
    ) -> MultimodalInput | None:
        """Return what the runtime runs on for a prompt with a place for each picture; None: `cancelled`.

        Raises InvalidRequest for what is no picture, LoadFailed, RuntimeFailed.
        """
        check_places(prompt, images)
        self.open()
        pieces: list[bytes] = []
        keys = tuple(hashlib.sha256(image).digest() for image in images)
        for (image, name), key in zip(with_names(images), keys, strict=True):
            if cancelled():
                return None
            pieces.append(self._embedded(image, key, name))
        assert self._encoder is not None
        shape, self.last = self._encoder.shape, keys
        pictures = Pictures(
            embed=pieces[0] if len(pieces) == 1 else b"".join(pieces),
            tokens=shape.tokens,
            count=len(pieces),
            width=shape.width,
            height=shape.height,
            start=self.markers.start,
            end=self.markers.end,
            content=self.markers.content,
        )
        return MultimodalInput(prompt=with_tags(prompt, self.markers), images=pictures, think=think)

    def _embedded(self, image: bytes, key: bytes, name: str) -> bytes:
        """Return a picture's embeddings, from those that are kept where it has been seen before."""
        embeddings = self._kept.get(key)
        if embeddings is None:
            assert self._encoder is not None
            shape = self._encoder.shape
            embeddings = self._encoder.encode(square(image, shape.width, shape.height, name))
            self._kept.put(key, embeddings)
        return embeddings

    def close(self) -> None:
        """Free the encoder; again, do nothing."""
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()


def with_tags(prompt: str, markers: Markers) -> str:
    """Return a prompt with the runtime's `<image>` in the place of each picture, and only there.

    The runtime writes the markers: one that stands in the prompt is a user's, and would be taken for a
    picture, or for a token of one.
    """
    literal = {_TAG, "<video>", *filter(None, markers)}
    harmless = re.sub("|".join(map(re.escape, literal)), lambda tag: broken_up(tag[0]), prompt)
    return harmless.replace(IMAGE_PLACE, _TAG)
