"""The ids that end an answer in known families, for models that bring no file that names them.

Runtime 1.3.0 does not heed the id in models of toolkit 1.2.2 and 1.2.3: they go on forever. Families
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


_OTHER_VOCABULARY = r"qwen3\.5|phi3small"
"""Names of models whose vocabulary is not that of the family that they are counted among."""


def end_tokens(family: str | None, *names: str) -> tuple[int, ...]:
    """Return the ids that end an answer of a family such as "qwen2.5"; () where they are not known.

    `names` are those of the model's file, folder and repository: they may tell more than the family, such
    as what DeepSeek R1 was distilled into.
    """
    told = [re.sub(r"[-_ ]+", "", name).lower() for name in (family or "", *names)]
    if any(re.search(_OTHER_VOCABULARY, name) for name in told):
        return ()
    found = (ids for name in told for pattern, ids in _FAMILIES if re.match(pattern, name))
    return next(found, ())
