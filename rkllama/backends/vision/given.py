"""The pictures of a run: their places in the prompt, their names in errors, and what was made of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence, Sized
from typing import Generic, TypeVar

from ...chat.messages import IMAGE_PLACE
from ...errors import RuntimeFailed

T = TypeVar("T", bound=Sized)


def check_places(prompt: str, images: Sequence[bytes]) -> None:
    """Raise RuntimeFailed unless the prompt has a place for each picture."""
    places = prompt.count(IMAGE_PLACE)
    if places != len(images):
        raise RuntimeFailed(f"the prompt has {places} places for {len(images)} pictures")


def with_names(images: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """Yield the pictures, each with what errors call it."""
    for number, image in enumerate(images, 1):
        alone = len(images) == 1
        yield image, "the picture" if alone else f"picture {number} of {len(images)}"


class Kept(Generic[T]):
    """What was made of the pictures that were seen last, by their digests. Used by several runs at a time."""

    def __init__(self, size: int, number: int | None = None) -> None:
        """`size` is what all have together at most, by their own length, and `number` how many they are; one
        is kept however large it is.
        """
        self._size = size
        self._number = number
        self._made: OrderedDict[bytes, T] = OrderedDict()
        """Longest unused first."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._made)

    def get(self, digest: bytes) -> T | None:
        """Return what was made of a picture, which counts as its use."""
        with self._lock:
            made = self._made.get(digest)
            if made is not None:
                self._made.move_to_end(digest)
            return made

    def put(self, digest: bytes, made: T) -> None:
        """Keep what was made of a picture."""
        with self._lock:
            self._made[digest] = made
            while len(self._made) > 1 and self._is_too_much:
                self._made.popitem(last=False)

    @property
    def _is_too_much(self) -> bool:
        many = self._number is not None and len(self._made) > self._number
        return many or sum(map(len, self._made.values())) > self._size
