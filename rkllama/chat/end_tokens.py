"""The ids that end an answer in known families, for models that bring no file that names them.

Runtime 1.3.0 does not heed the id in models of toolkit 1.2.2 and 1.2.3: they go on for ever. Families
whose ids are not the same in every model are left out, since an id of another vocabulary is some word.
"""

from __future__ import annotations

import re

_QWEN = (151645, 151643)  # <|im_end|>, <|endoftext|>
_LLAMA3 = (128009, 128001, 128008)  # <|eot_id|>, <|end_of_text|>, <|eom_id|>

_FAMILIES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"qwen(?:2|2\.5|3)(?![\d.])|qwq|deepseekr1(?:distill)?qwen", _QWEN),
    (r"llama3(?!\d)|deepseekr1(?:distill)?llama", _LLAMA3),
    (r"tinyllama|llama2(?!\d)", (2,)),  # </s>
    (r"gemma2(?!\d)", (107, 1)),  # <end_of_turn>, <eos>
    (r"gemma3(?![\dn])", (106, 1)),
    (r"phi3(?:\.5)?(?!\d|small)", (32007, 32000, 32001)),  # <|end|>, <|endoftext|>, <|assistant|>
    (r"internlm2(?!\d)", (92542, 2)),  # <|im_end|>, </s>
)


def end_tokens(family: str | None) -> tuple[int, ...]:
    """Return the ids that end an answer of a family such as "qwen2.5"; () where they are not known."""
    condensed = re.sub(r"[-_ ]+", "", family or "").lower()
    return next((ids for pattern, ids in _FAMILIES if re.match(pattern, condensed)), ())
