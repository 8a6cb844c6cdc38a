"""Reranking in the shape of Jina's and Cohere's APIs: `POST /v1/rerank` and its other addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..types import RerankRequest, RerankResult
from .common import Fields, new_id

__all__ = ["RerankCall", "decode_rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """A decoded request for scores: `top_n` of them are answered, None is all."""

    request: RerankRequest
    top_n: int | None
    returns_documents: bool

    def body(self, result: RerankResult) -> dict[str, Any]:
        """Return the answer, the best document first; without counts where the backend has none."""
        best = sorted(range(len(result.scores)), key=lambda index: -result.scores[index])
        body: dict[str, Any] = {
            "id": new_id("rerank-"),
            "object": "list",
            "model": self.request.model,
            "results": [self._result(index, result.scores[index]) for index in best[: self.top_n]],
        }
        if (tokens := result.usage.prompt_tokens) is not None:
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
            body["meta"] = {"tokens": {"input_tokens": tokens}}
        return body

    def _result(self, index: int, score: float) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if self.returns_documents:
            result["document"] = {"text": self.request.documents[index]}
        return result


def decode_rerank(body: object) -> RerankCall:
    """`POST /v1/rerank`. As at Jina, the documents come back unless the request says otherwise.

    Raises InvalidRequest.
    """
    fields = Fields(body)
    truncate, returns = fields.flag("truncate"), fields.flag("return_documents")
    request = RerankRequest(
        model=_filled(fields, "model", "the name of a model"),
        query=_filled(fields, "query", "a text that is not empty"),
        documents=_documents(fields),
        truncate=True if truncate is None else truncate,
    )
    return RerankCall(
        request=request,
        top_n=fields.integer("top_n", 1),
        returns_documents=True if returns is None else returns,
    )


def _filled(fields: Fields, name: str, expected: str) -> str:
    text = fields.need(name, fields.text)
    if not text:
        raise fields.fail(name, expected)
    return text


def _documents(fields: Fields) -> tuple[str, ...]:
    """Return the texts: strings, or objects whose `text` is one."""
    items = fields.need("documents", fields.items)
    if not items:
        raise fields.fail("documents", "one or more texts")
    return tuple(_document(fields, index, item) for index, item in enumerate(items))


def _document(fields: Fields, index: int, item: object) -> str:
    name = f"documents[{index}]"
    if isinstance(item, str):
        return Fields({name: item}).text(name) or ""
    if not isinstance(item, dict):
        raise fields.fail(name, "a string, or an object with a 'text'")
    entry = Fields(item, f"{fields.where}{name}.")
    return entry.need("text", entry.text)
