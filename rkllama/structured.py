"""Answers of a given shape from a backend that cannot be constrained: asked for, checked, asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from .errors import InvalidRequest

Format = Literal["json"] | str | Mapping[str, Any]
""" "json" for any JSON object, else a JSON schema."""

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_MAX_ERROR_CHARS = 400


def schema_prompt(format: Format) -> str:
    """What the system prompt says so that the answer takes this shape."""
    if isinstance(format, str):
        return "Answer with one JSON object and nothing else: no explanation, no code fence."
    return (
        "Answer with JSON that fits the schema below, and nothing else: "
        f"no explanation, no code fence.\nJSON schema:\n{json.dumps(format, ensure_ascii=False)}"
    )


def check_schema(format: Format) -> None:
    """Raises InvalidRequest for a schema that is none, best before a model is troubled with it."""
    if isinstance(format, str):
        return
    from jsonschema import exceptions, validators

    kind = validators.validator_for(format, default=validators.Draft202012Validator)
    try:
        kind.check_schema(format)
    except exceptions.SchemaError as error:
        raise InvalidRequest(
            f"the JSON schema is not valid: {error.message[:_MAX_ERROR_CHARS]}", param="format"
        ) from error


def validate_answer(text: str, format: Format) -> str | None:
    """What is wrong with an answer, in words for the model; None where it fits.

    Raises InvalidRequest for a schema that cannot be used.
    """
    check_schema(format)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    if isinstance(format, str):
        return None if isinstance(value, dict) else "it is JSON, but not an object"
    return _violation(value, format)


def _violation(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The most telling violation of the schema. References to other documents are never fetched."""
    from jsonschema import exceptions, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    registry: Registry[Any] = Registry()
    try:
        error = exceptions.best_match(kind(schema, registry=registry).iter_errors(value))
    except (Unresolvable, RecursionError, re.error) as unusable:
        raise InvalidRequest(
            f"the JSON schema cannot be used: {unusable}", param="format"
        ) from None
    if error is None:
        return None
    place = error.json_path.removeprefix("$").removeprefix(".")
    message = error.message[:_MAX_ERROR_CHARS]
    return f"at {place}: {message}" if place else message


def strip_fence(text: str) -> str:
    """The answer without the code fence that models like to put around JSON."""
    fenced = _FENCE.match(text)
    return fenced[1] if fenced else text


def retry_message(error: str) -> str:
    """The next user turn after an answer with this error."""
    return (
        f"That answer does not have the form that was asked for: {error}. "
        "Answer again, with the corrected JSON and nothing else."
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
