"""Reranking as Jina's and Cohere's clients have it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rkllama.api.rerank import decode_rerank
from rkllama.errors import InvalidRequest
from rkllama.types import RerankResult, Usage
from tests.dialects import assert_golden

BODY: dict[str, Any] = {"model": "m", "query": "q", "documents": ["one", {"text": "two"}, "three"]}
RESULT = RerankResult(model="m", scores=(0.25, 0.5, 0.25), usage=Usage(prompt_tokens=7))


def test_the_documents_are_texts_or_objects_with_one() -> None:
    call = decode_rerank(BODY)
    assert call.request.documents == ("one", "two", "three")
    assert (call.request.model, call.request.query, call.request.truncate) == ("m", "q", True)
    assert decode_rerank({**BODY, "truncate": False}).request.truncate is False
    assert decode_rerank({**BODY, "documents": ["a\0", ""]}).request.documents == ("a\ufffd", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": None}, "'query' is required"),
        ({"query": ""}, "'query' must be a text that is not empty"),
        ({"query": ["q"]}, "'query' must be a string"),
        ({"model": ""}, "'model' must be the name of a model"),
        ({"documents": None}, "'documents' is required"),
        ({"documents": []}, "'documents' must be one or more texts"),
        ({"documents": "one"}, "'documents' must be a list"),
        (
            {"documents": ["one", 2]},
            r"'documents\[1\]' must be a string, or an object with a 'text'",
        ),
        ({"documents": [{"image": "x"}]}, r"'documents\[0\]\.text' is required"),
        ({"top_n": 0}, "'top_n' must be between 1"),
        ({"return_documents": 1}, "'return_documents' must be true or false"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        decode_rerank({**BODY, **change})


def test_the_best_comes_first_and_equal_ones_in_their_order() -> None:
    body = decode_rerank(BODY).body(RESULT)
    assert [result["index"] for result in body["results"]] == [1, 0, 2]
    assert body["results"][0] == {
        "index": 1,
        "relevance_score": 0.5,
        "document": {"text": "two"},
    }
    best = decode_rerank({**BODY, "top_n": 1, "return_documents": False}).body(RESULT)
    assert best["results"] == [{"index": 1, "relevance_score": 0.5}]
    more = decode_rerank({**BODY, "top_n": 9}).body(RESULT)
    assert more["results"] == body["results"]


def test_counts_that_nobody_has_are_left_out() -> None:
    assert decode_rerank(BODY).body(RESULT)["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    unknown = RerankResult(model="m", scores=(0.0, 0.0, 0.0))
    assert {"usage", "meta"}.isdisjoint(decode_rerank(BODY).body(unknown))


def test_golden_rerank() -> None:
    body = decode_rerank(BODY).body(RESULT) | {"id": "rerank-ID"}
    sent, answer = (json.dumps(value, indent=2) for value in (BODY, body))
    assert_golden("openai/rerank.txt", f"POST /v1/rerank\n{sent}\n\n{answer}\n")
