"""What the tokenizer beside a model tells where the runtime does not: a prompt's tokens, and a token's id."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..chat.rerank import NO, YES
from ..errors import Unsupported
from ..models.filename import EXTENSIONS, strip_extension
from .base import RerankSpec

_FILE = "tokenizer.json"


class TokenCounter:
    """Counts with `tokenizer.json` beside the model's file, through the extra `tokenizer`.

    It is read when it is first needed: that takes a second and the memory of its vocabulary.
    """

    def __init__(self, model: str) -> None:
        self._path = _beside(model)
        self._tokenizer: Any = None

    def count(self, text: str) -> int | None:
        """Return how many tokens a complete prompt has; None without a usable tokenizer."""
        return self._ask(lambda known: len(known.encode(text, add_special_tokens=False).ids))

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None without a usable tokenizer, or where it has none."""
        return self._ask(lambda known: known.token_to_id(token))

    def _ask(self, question: Callable[[Any], int | None]) -> int | None:
        if self._path is None:
            return None
        try:
            if self._tokenizer is None:
                from tokenizers import Tokenizer

                self._tokenizer = Tokenizer.from_file(self._path)
            return question(self._tokenizer)
        except Exception:
            # What the package raises for a file that it cannot read has no class of its own.
            self._path = None
            return None


def yes_no_tokens(spec: RerankSpec, counter: TokenCounter) -> tuple[int, ...]:
    """Return the ids of a reranker's "yes" and "no": as its Modelfile, the tokenizer beside it, or its family
    has them. Raises Unsupported where none does.
    """
    if spec.yes_no_tokens:
        return spec.yes_no_tokens
    yes, no = counter.token_id(YES), counter.token_id(NO)
    if yes is not None and no is not None:
        return yes, no
    if spec.usual_yes_no_tokens:
        return spec.usual_yes_no_tokens
    raise Unsupported(
        'it is not known which tokens are this model\'s "yes" and "no"',
        hint="Put its tokenizer.json beside the model and install rkllama[tokenizer], or set "
        "PARAMETER yes_token_id and no_token_id in its Modelfile.",
    )


def _beside(model: str) -> str | None:
    """Return the path of a model's tokenizer: one with its name, or the folder's if it holds one model."""
    folder, file = os.path.split(model)
    own = os.path.join(folder, f"{strip_extension(file)}.{_FILE}")
    if os.path.isfile(own):
        return own
    shared = os.path.join(folder, _FILE)
    if not os.path.isfile(shared):
        return None
    models = [name for name in os.listdir(folder) if name.lower().endswith(EXTENSIONS)]
    return shared if len(models) == 1 else None
