"""Answers of a given shape from a backend that cannot be constrained: requested, checked, requested again.

A schema comes from the client. Its regular expressions and its references can make the check of a short
answer take forever, a regular expression even with the interpreter's lock held, and the check of a very
large schema takes minutes: such a schema is used in a process of its own (`python -m
rkllama.engine.structured.schema`), which can be ended.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

from ...errors import InvalidRequest
from ...files import IMPORT_ROOT
from ...runner.environment import for_interpreter
from .references import find_dead_reference, no_documents

if TYPE_CHECKING:
    from ...schema.grammar import Grammar

log = logging.getLogger("rkllama")

Format = Literal["json"] | str | Mapping[str, Any]
""" "json" for any JSON object, else a JSON schema."""

_MAX_ERROR_CHARS = 400
_MAX_SECONDS = 5.0
"""For a check in a process of its own, whose start takes up to a second on a small board."""
_MAX_BYTES = 512 << 20
_QUICK = 20_000
"""Characters of an answer that a grammar reads in a fraction of a second."""
_LARGE = 5000
"""Parts of a schema that are checked in about half a second."""
_PATTERNS = frozenset(("pattern", "patternProperties"))
_BRACKET = re.compile(r"[{\[]")
_MAX_EMBEDDED = 16
"""Brackets in a text that are tried as the beginning of JSON."""
_REFERENCES = frozenset(("$ref", "$dynamicRef", "$recursiveRef"))


def schema_prompt(format: Format) -> str:
    """Return what the system prompt says so that the answer takes this shape."""
    if isinstance(format, str):
        return "Answer with one JSON object and nothing else: no explanation, no code fence."
    return (
        "Answer with JSON that fits the schema below, and nothing else: "
        f"no explanation, no code fence.\nJSON schema:\n{json.dumps(format, ensure_ascii=False)}"
    )


def check_schema(format: Format) -> None:
    """Raise InvalidRequest for an invalid schema, ideally before a model has to work on it."""
    if not isinstance(format, str):
        _find_violation(format, None, apart=_is_costly(format, _PATTERNS))


def validate_answer(text: str, format: Format) -> str | None:
    """Return what is wrong with an answer, in words for the model; None where it fits.

    Raises InvalidRequest for a schema that cannot be used.
    """
    from ...schema.values import DuplicateKey, parse

    try:
        value = parse(text)
    except DuplicateKey as error:
        return str(error)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    if isinstance(format, str):
        return None if isinstance(value, dict) else "it is JSON, but not an object"
    apart = _is_costly(format, _PATTERNS | _REFERENCES)
    if apart and _is_quickly_valid(text, format):
        return None
    return _find_violation(format, text, apart=apart)


def _is_quickly_valid(text: str, format: Mapping[str, Any]) -> bool:
    """Whether a grammar accepts an answer, which saves a process; what it refuses still needs one."""
    if len(text) > _QUICK or "$schema" in format:
        return False
    grammar = grammar_of(format)
    return grammar is not None and grammar.accepts(text)


def grammar_of(format: Format) -> Grammar | None:
    """Return a schema as a grammar; None where it asks for what no grammar holds."""
    try:
        return _compiled(json.dumps(format))
    except (ValueError, RecursionError):
        return None


@lru_cache(maxsize=16)
def _compiled(schema: str) -> Grammar | None:
    # A server that nobody asks for JSON does without.
    from ...schema.errors import SchemaError
    from ...schema.grammar import compile_schema

    try:
        return compile_schema(json.loads(schema))
    except SchemaError as error:
        log.info("answers of a schema are checked when they are whole: %s", error)
        return None


def _is_costly(schema: Mapping[str, Any], keys: frozenset[str]) -> bool:
    """Return whether a schema has one of the keys, or is very large."""
    waiting: list[Any] = [schema]
    parts = 0
    while waiting:
        part = waiting.pop()
        parts += 1
        if parts > _LARGE:
            return True
        if isinstance(part, Mapping):
            if part.keys() & keys:
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


def _find_violation(schema: Mapping[str, Any], answer: str | None, *, apart: bool) -> str | None:
    found = _examine_apart(schema, answer) if apart else _examine(schema, answer)
    if reason := found.get("unusable"):
        raise InvalidRequest(
            f"the JSON schema is not valid: {reason[:_MAX_ERROR_CHARS]}", param="format"
        )
    return found.get("violation")


# --- What may take forever ------------------------------------------------------------------------


def _examine_apart(schema: Mapping[str, Any], answer: str | None) -> dict[str, str]:
    """Return what `_examine` finds, from a process that ends in time; what was not checked is not valid."""
    import subprocess

    failure = "unusable" if answer is None else "violation"
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps([schema, answer]).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=IMPORT_ROOT,  # where `-m` looks first
            env=for_interpreter(),
            timeout=_MAX_SECONDS,
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent only
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {failure: f"it could not be checked within {_MAX_SECONDS:g} s"}
    except (OSError, RecursionError, subprocess.CalledProcessError):
        return {failure: "it could not be checked, because the process that checks it failed"}
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))
    sys.stdout.write(json.dumps(_examine(*json.load(sys.stdin))))


def _examine(schema: Mapping[str, Any], answer: str | None) -> dict[str, str]:
    """Return why the schema is `unusable`, or else the answer's most telling `violation`, or nothing.

    References to other documents are never fetched.
    """
    from jsonschema import exceptions, validators

    if not isinstance(schema.get("$schema", ""), str):
        return {"unusable": "its $schema is not the URI of a draft"}
    try:
        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        kind.check_schema(schema)
    except Exception as error:  # a schema can break its checker in many ways
        said = error.message if isinstance(error, exceptions.SchemaError) else str(error)
        return {"unusable": said or type(error).__name__}
    try:
        if answer is None:
            return find_dead_reference(schema, kind.META_SCHEMA)
    except Exception as unexpected:  # a reference may lead to what is no schema at all
        return {"unusable": f"its references cannot be followed ({unexpected})"}
    of_type = partial(_not_of_type, kind.VALIDATORS["type"])
    exact = validators.extend(kind, {"multipleOf": _not_a_multiple, "type": of_type})
    validator = exact(schema, registry=no_documents(), format_checker=_format_checker())
    errors = validator.iter_errors(json.loads(answer))
    try:
        worst = exceptions.best_match(errors)
    except ArithmeticError as impossible:  # an infinite number, divided by a finite one
        return {"violation": f"it could not be checked ({impossible})"}
    except Exception as unexpected:
        return {"unusable": str(unexpected) or type(unexpected).__name__}
    if worst is None:
        return {}
    place = worst.json_path.removeprefix("$").removeprefix(".")
    message = worst.message[:_MAX_ERROR_CHARS]
    return {"violation": f"at {place}: {message}" if place else message}


def _format_checker() -> Any:
    """Return the check of the formats that grammars hold answers to, and of no others."""
    from jsonschema import FormatChecker

    from ...schema.regex.formats import FORMATS, has_format

    def fits(name: str, value: Any) -> bool:
        return not isinstance(value, str) or has_format(value, name)

    checker = FormatChecker(formats=())
    for name in FORMATS:
        checker.checks(name)(partial(fits, name))
    return checker


def _not_of_type(check: Any, validator: Any, types: Any, value: Any, schema: Any) -> Iterator[Any]:
    """`type` as `check` has it, with OpenAPI's `nullable` beside it, which grammars know, too."""
    if value is not None or schema.get("nullable") is not True:
        yield from check(validator, types, value, schema)


def _not_a_multiple(validator: Any, factor: Any, number: Any, _schema: Any) -> Iterator[Any]:
    """`multipleOf` with the numbers as they are written: as floats, 19.99 is not a multiple of 0.01."""
    from decimal import Decimal
    from fractions import Fraction

    from jsonschema.exceptions import ValidationError

    if not validator.is_type(number, "number"):
        return
    if Fraction(Decimal(str(number))) % Fraction(Decimal(str(factor))):
        yield ValidationError(f"{number!r} is not a multiple of {factor}")


# --- What the model is told -------------------------------------------------------------------------


def is_json(text: str) -> bool:
    """Return whether all of a text is JSON, whatever its form."""
    from ...schema.values import no_constant

    try:
        json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def embedded_json(text: str) -> Iterator[str]:
    """Yield the objects and arrays that stand in a text which is not JSON: in a fence, after a sentence.

    Not those inside one that is broken: a part of an answer is no answer.
    """
    from ...schema.values import no_constant

    decoder = json.JSONDecoder(parse_constant=no_constant)
    at, found = 0, 0
    while (start := _BRACKET.search(text, at)) and found < _MAX_EMBEDDED:
        found += 1
        try:
            _, at = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            at = max(error.pos, start.end())
        except (ValueError, RecursionError):
            return
        else:
            yield text[start.start() : at]


def strip_fence(text: str) -> str:
    """Return the answer without the code fence that models like to put around JSON."""
    opener, _, rest = text.strip().partition("\n")
    if opener.rstrip() not in ("```", "```json") or not rest.endswith("```"):
        return text
    return rest.removesuffix("```").strip()


def retry_message(error: str) -> str:
    """Return the next user turn after an answer with this error."""
    return (
        f"That answer does not have the form that was asked for: {error}. "
        "Answer again, with the corrected JSON and nothing else."
    )


if __name__ == "__main__":
    _main()
