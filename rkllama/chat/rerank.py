"""The prompt with which a language model judges whether a document answers a query.

It is the one that Qwen3-Reranker was trained with. What the model would say next is the score: how much
likelier "yes" is than "no".
"""

from __future__ import annotations

import re

_BEGINNING = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
)
_END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

YES, NO = "yes", "no"
"""The tokens that are compared."""


def rerank_prompt(query: str, document: str) -> str:
    """Return the complete prompt. Control tokens in the texts are not minded: see messages.neutraliser."""
    return f"{_BEGINNING}<Query>: {query}\n<Document>: {document}{_END}"


def usual_yes_no_tokens(family: str | None) -> tuple[int, ...]:
    """Return the ids of YES and NO in a family such as "qwen3"; () where they are not known."""
    name = re.sub(r"[-_ ]+", "", family or "").lower()
    return (9693, 2152) if re.fullmatch(r"qwen(2|2\.5|3)", name) else ()
