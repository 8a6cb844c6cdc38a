"""What llama.cpp holds an answer to in place of a client's JSON schema: a schema that its grammar engine
(llguidance) reads, or a grammar in its own notation, made of what the house's compiler makes of the schema.

Text that meets it meets the client's schema too, but for what a grammar cannot express: the engine checks
the whole completion afterwards. The client's schema is never changed, always copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .base import Emit, RunResult
from .llamacpp_log import schema_error
from .own_log import OwnOutput

if TYPE_CHECKING:
    from .llama_wire import Completion

_LARGEST = 9_007_199_254_740_991
"""Digits of a number before its point: 16, as many as a JSON number holds exactly."""
_SMALLEST = 1e-10
"""Digits after the point: llguidance counts no further. Small models can go on with them for ever."""
_ANY = {
    "type": ["object", "array", "string", "number", "boolean", "null"],
    "additionalProperties": {"$ref": "#/$defs/any"},
    "items": {"$ref": "#/$defs/any"},
}
_ANY_OBJECT = {
    "type": "object",
    "additionalProperties": {"$ref": "#/$defs/any"},
    "$defs": {"any": _ANY},
}
"""The schema of JSON mode."""
_GUIDANCE = {"whitespace_flexible": False, "coerce_one_of": True, "lenient": True}
"""llguidance's own options. Blanks between JSON's tokens have an end: a small model can fill its whole
completion with them. Keywords that a grammar cannot express are passed over, else there is no grammar."""
_HIGHEST_COUNT = 10_000
"""Items or characters that a grammar counts: with a thousand times more it takes minutes for a token."""
_COUNTED = ("Items", "Length", "Properties", "Contains")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "prefixItems")
_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions")
_COMPOSING = {"allOf", "anyOf", "oneOf", "$ref", "patternProperties"}
_LITERAL = ("const", "enum", "default", "examples")
_PASSED_OVER = frozenset(
    ("propertyNames", "not", "if", "dependentRequired", "dependentSchemas", "dependencies")
)
"""Keywords that llguidance reads as if they were not there. A uri to it may hold blanks."""
_NOT_CONVERTED = _PASSED_OVER | {
    "multipleOf",
    "minProperties",
    "maxProperties",
    "pattern",
    "format",
}
"""Those of which llama.cpp's own converter, in builds without llguidance, makes nothing or too little; nor
does it bound numbers that are no integers.
"""


_GRAMMARS = 64
"""Schemas that are remembered."""
_NO_JSON = "X"
"""What no JSON begins with."""
_TRIAL = {"n_predict": 1, "temperature": 0, "mirostat": 0, "logit_bias": [[_NO_JSON, 1000]]}
"""A run whose token is _NO_JSON, unless something forbids it."""


class Constraints:
    """What holds a model's answers to the schemas of its clients: see grammar.constraints.

    A schema that llama.cpp cannot read may constrain nothing: so each is tried, once. One that it refuses, as
    builds without llguidance do, is tried without its patterns, too, at last.
    """

    def __init__(self, *, converted: bool = False) -> None:
        """`converted`: llama.cpp may be a build that has no llguidance."""
        self._converted = converted
        self._known: dict[str, dict[str, Any]] = {}
        """By a client's schema: the part of a request that constrains."""

    def apply(
        self,
        request: dict[str, Any],
        run: Callable[[dict[str, Any], Emit], Completion],
        aborted: Callable[[], bool],
    ) -> RunResult | None:
        """Put what llama.cpp can use in the place of the request's schema, and return what `find` has run for
        that. Why a schema is passed over stands in this process's log. Raises InvalidRequest.
        """
        output = OwnOutput()
        try:
            constraint, tried = self.find(
                request, run, aborted=aborted, log_tells=lambda: output.wait_for(schema_error)
            )
        finally:
            output.close()
        del request["json_schema"]
        request.update(constraint)
        return tried

    def find(
        self,
        request: dict[str, Any],
        run: Callable[[dict[str, Any], Emit], Completion],
        *,
        aborted: Callable[[], bool],
        log_tells: Callable[[], str | None],
    ) -> tuple[dict[str, Any], RunResult | None]:
        """Return what constrains an answer to the request's schema, as a part of a request.

        It is tried by a `run` of the request's own prompt, which is in the cache then; the second value is
        that run's. `log_tells` is asked why llama.cpp passed over a schema. Raises InvalidRequest where
        nothing constrains.
        """
        client_schema = request["json_schema"]
        key = json.dumps(client_schema, ensure_ascii=False)
        try:
            key.encode()
        except UnicodeEncodeError as error:  # to llama.cpp this is no JSON at all
            text = f"the JSON schema cannot be used: {error}"
            raise InvalidRequest(text, param="format") from None
        if key in self._known:
            return self._known[key], None
        free = {name: value for name, value in request.items() if name != "json_schema"}
        trials = _Trials(free, run, aborted)
        constraint = trials.first(constraints(client_schema, converted=self._converted))
        if constraint is None:
            constraint = trials.first(trials.without_patterns())
        if constraint is None:
            reason = trials.refusal or log_tells() or "llama.cpp cannot constrain an answer by it"
            raise InvalidRequest(f"the JSON schema cannot be used: {reason}", param="format")
        if not trials.ended:
            self._keep(key, constraint)
        return constraint, trials.result

    def _keep(self, key: str, constraint: dict[str, Any]) -> None:
        while len(self._known) >= _GRAMMARS:
            self._known.pop(next(iter(self._known)), None)  # another lane may be at it, too
        self._known[key] = constraint


@dataclass
class _Trials:
    """Runs of a request with what may constrain it, one after the other."""

    _request: Mapping[str, Any]
    _run: Callable[[dict[str, Any], Emit], Completion]
    _aborted: Callable[[], bool]
    result: RunResult | None = None
    """Of the first run that llama.cpp made."""
    refusal: str | None = None
    """Why llama.cpp made none of the first one that it refused."""
    ended: bool = False
    """Whether nobody wants the answer any more: what was tried last may constrain, or not."""
    _refused: list[Any] = field(default_factory=list)
    """Schemas that llama.cpp does not take."""

    def first(self, constraints: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the first that constrains; None where none does."""
        return next(filter(self._constrains, constraints), None)

    def without_patterns(self) -> list[dict[str, Any]]:
        """The schemas that were refused without their patterns: the engine checks the answer in any case."""
        simpler = map(without_patterns, self._refused)
        return [{"json_schema": each} for each in simpler if each not in self._refused]

    def _constrains(self, constraint: dict[str, Any]) -> bool:
        tokens: list[str] = []
        completion = self._run({**self._request, **_TRIAL, **constraint}, tokens.append)
        self.ended = self._aborted()
        if completion.problem and completion.is_refused and not self.ended:
            self.refusal = self.refusal or str(completion.problem.get("message"))
            if "json_schema" in constraint:
                self._refused.append(constraint["json_schema"])
            return False
        result = completion.result(aborted=self.ended)
        self.result = self.result or result
        return self.ended or "".join(tokens).strip() != _NO_JSON


def constraints(schema: Any, *, converted: bool = False) -> Iterator[dict[str, Any]]:
    """The parts of requests that constrain an answer by a schema (or "json" for any object), best first.

    `converted`: llama.cpp may be a build that converts schemas itself. A grammar of the house's is the first
    where llama.cpp is known to pass over a part of the schema, else the last; it is not there where the
    schema has none, or too large a one.
    """
    passes_over = schema != "json" and is_passed_over(schema, converted=converted)
    if passes_over and (grammar := written_grammar(schema)) is not None:
        yield {"grammar": grammar}
    for each in grammar_schemas(schema):
        yield {"json_schema": each}
    if not passes_over and (grammar := written_grammar(schema)) is not None:
        yield {"grammar": grammar}


def written_grammar(schema: Any) -> str | None:
    """Return the grammar of a schema, in llama.cpp's notation (GBNF); None where there is none."""
    from ..schema.errors import SchemaError
    from ..schema.grammar import compile_schema

    try:
        return compile_schema(schema).gbnf()
    except (SchemaError, RecursionError):
        return None


def is_passed_over(schema: Any, *, converted: bool) -> bool:
    """Return whether llama.cpp is known to read less in a schema than there is."""
    if isinstance(schema, list):
        return any(is_passed_over(each, converted=converted) for each in schema)
    if not isinstance(schema, dict):
        return False
    if (_NOT_CONVERTED if converted else _PASSED_OVER) & schema.keys():
        return True
    if schema.get("format") == "uri" or (converted and _bounds_numbers(schema)):
        return True
    parts = (each for name, each in schema.items() if name not in _LITERAL)
    return any(is_passed_over(each, converted=converted) for each in parts)


def _bounds_numbers(schema: dict[str, Any]) -> bool:
    """Whether a schema has bounds for numbers that are no integers."""
    bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    return bool(bounds & schema.keys()) and schema.get("type") != "integer"


def grammar_schemas(schema: Any) -> list[dict[str, Any]]:
    """The schemas to constrain with, best first, for an engine that may not take the first one.

    They are made of a JSON schema, or of "json" for any object.
    """
    plain = without_high_limits(with_closed_objects(_ANY_OBJECT if schema == "json" else schema))
    return [{**each, "x-guidance": _GUIDANCE} for each in (with_few_digits(plain), plain)]


def with_few_digits(schema: Any) -> Any:
    """Return the schema with limits for numbers that have none: 16 digits before the point, ten after it."""
    if isinstance(schema, list):
        return [with_few_digits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    limited = {
        name: value if name in ("const", "enum", "default") else with_few_digits(value)
        for name, value in schema.items()
    }
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "number" not in kinds and "integer" not in kinds:
        return limited
    bounds = ("minimum", "exclusiveMinimum", -_LARGEST), ("maximum", "exclusiveMaximum", _LARGEST)
    if any(_is_beyond(schema.get(name), -limit) for *names, limit in bounds for name in names):
        return limited  # all these numbers have more digits
    for name, exclusive, limit in bounds:
        if all(each not in schema or _is_beyond(schema[each], limit) for each in (name, exclusive)):
            limited.pop(exclusive, None)
            limited[name] = limit
    if "number" in kinds and not _COMPOSING & schema.keys():
        limited.setdefault("multipleOf", _SMALLEST)
    return limited


def _is_beyond(bound: Any, limit: int) -> bool:
    """Return whether a bound lies further from zero than `limit`, on the same side."""
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        return False
    return bound > limit if limit > 0 else bound < limit


def without_high_limits(schema: Any) -> Any:
    """The schema without limits that are too high for a grammar to count up to."""
    if isinstance(schema, list):
        return [without_high_limits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = dict(schema)
    for name, value in schema.items():
        if name in ("const", "enum", "default"):
            continue
        if isinstance(value, dict | list):
            lowered[name] = without_high_limits(value)
        elif isinstance(value, int | float) and value > _HIGHEST_COUNT and name[3:] in _COUNTED:
            if name.startswith("max"):
                del lowered[name]
            elif name.startswith("min"):
                lowered[name] = _HIGHEST_COUNT
    return lowered


def without_patterns(schema: Any) -> Any:
    """The schema without its texts' patterns: llama.cpp's own grammars, in builds without llguidance, refuse
    those with no ^ and $ around them, and what such expressions cannot say at all.
    """
    if isinstance(schema, list):
        return [without_patterns(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    literal = ("const", "enum", "default")
    return {
        name: value if name in literal else without_patterns(value)
        for name, value in schema.items()
        if name != "pattern" or not isinstance(value, str)
    }


def with_closed_objects(schema: Any) -> Any:
    """Return the schema with each object limited to the properties that it names, where it leaves that open.

    Small models would else go on inventing properties until there are no tokens left.
    """
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    if "items" in schema:
        closed["items"] = with_closed_objects(schema["items"])
    for name in _LISTS_OF_SCHEMAS:
        if isinstance(schema.get(name), list):
            closed[name] = [with_closed_objects(each) for each in schema[name]]
    for name in _SCHEMAS_BY_NAME:
        if isinstance(schema.get(name), dict):
            closed[name] = {key: with_closed_objects(each) for key, each in schema[name].items()}
    if _names_all_properties(schema):
        closed.setdefault("additionalProperties", False)
    return closed


def _names_all_properties(schema: dict[str, Any]) -> bool:
    """Whether an object with no other properties than those named can meet the schema."""
    properties, required = schema.get("properties"), schema.get("required") or []
    if not isinstance(properties, dict) or not properties or not isinstance(required, list):
        return False
    if _COMPOSING & schema.keys():
        return False
    return all(isinstance(name, str) and name in properties for name in required)
