"""How models write tool calls, and how such text is read while it arrives.

A call is an opener, a head, JSON and closers: `<tool_call>` `{…}` `</tool_call>` (Qwen, Hermes),
`<|python_tag|>` `{…}` and `<function=name>` `{…}` (Llama 3), `[TOOL_CALLS]` `[…]` or
`[TOOL_CALLS]name[ARGS]` `{…}` (Mistral), `<｜tool▁call▁begin｜>function<｜tool▁sep｜>name` `{…}` (DeepSeek),
`<|tool_call|>` `[…]` (Granite), a code fence, or bare JSON. In place of JSON there can be tags:
`<function=name>` `<parameter=key>` text `</parameter>` `</function>` (Qwen 3.5, Qwen 3 Coder). What only
looks like a call is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_MAX_DEPTH = 64
_MAX_HEAD = 1000
"""Characters between opener and JSON, which are looked at again with each piece; more are no head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a call. `head` matches between opener and JSON; `partial` matches every
    beginning of a head, so that a mismatch shows at once. `strict`: the JSON alone has to show that
    it is a call, of a known tool. `tagged` matches up to the tags that can stand in place of JSON.
    """

    opener: str
    head: re.Pattern[str]
    partial: re.Pattern[str]
    closers: tuple[str, ...] = ()
    strict: bool = False
    json_at_opener: bool = False
    tagged: re.Pattern[str] | None = None


def _form(
    opener: str, head: str, partial: str, *closers: str, tagged: re.Pattern[str] | None = None
) -> Form:
    return Form(
        opener=opener,
        head=re.compile(head + _JSON_FOLLOWS),
        partial=re.compile(partial),
        closers=closers,
        tagged=tagged,
    )


def _bare(opener: str, *closers: str, json_at_opener: bool = False) -> Form:
    return Form(
        opener=opener,
        head=re.compile(r"\s*" + _JSON_FOLLOWS),
        partial=re.compile(r"\s*(?:\[\s*)?"),
        closers=closers,
        strict=True,
        json_at_opener=json_at_opener,
    )


_JSON_FOLLOWS = r"(?=\{|\[\s{0,99}[{\]])"
_NAME = r"(?P<name>[\w.-]{1,64})"
_FENCED = r"\s*(?:```(?:json)?\s*)?"
# No two \s* may meet: a failed match would take the square of the spaces' number.
_DEEPSEEK = rf"(?:function<｜tool▁sep｜>)?{_NAME}(?:\s*<｜tool▁sep｜>)?" + _FENCED
_DEEPSEEK_PARTIAL = (
    r"[\w.<｜▁-]{0,96}(?:｜>)?[\w.-]{0,64}(?:\s*[<｜\w▁]{1,12}(?:｜>)?)?[\s`json]*(?:\[\s*)?"
)
_TAGS_FOLLOW = r">\s*(?=<)"
_DEEPSEEK_CLOSERS = ("```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")

MARKED = (
    _form(
        "<tool_call>",
        _FENCED,
        r"[\s`json]*(?:\[\s*)?|\s*<(?:[a-z]{0,8}|function=[\w.-]{0,64}(?:>\s*)?)",
        "```",
        "</tool_call>",
        tagged=re.compile(r"\s*<function=" + _NAME + _TAGS_FOLLOW),
    ),
    _form("<|tool_call|>", _FENCED, r"[\s`json]*(?:\[\s*)?", "```", "<|/tool_call|>"),
    _form("<|python_tag|>", r"\s*", r"\s*(?:\[\s*)?", ";"),
    _form(
        "<function=",
        _NAME + r">\s*",
        r"[\w.-]{0,64}>?\s*(?:\[\s*)?",
        "</function>",
        "</tool_call>",
        tagged=re.compile(_NAME + _TAGS_FOLLOW),
    ),
    _form(
        "[TOOL_CALLS]",
        rf"\s*(?:{_NAME}(?:\s*\[CALL_ID\]\w{{1,64}}(?:\[ARGS\])?|\s*\[ARGS\])?\s*)?",
        r"\s*(?:\[\s*)?|\s*[\w.-]{1,64}\s*(?:\[[\w\[\]]{0,80}\s*(?:\[\s*)?)?",
    ),
    _form(
        "<｜tool▁calls▁begin｜>",
        rf"\s*<｜tool▁call▁begin｜>{_DEEPSEEK}",
        rf"\s*[<｜\w▁]{{0,18}}|\s*<｜tool▁call▁begin｜>{_DEEPSEEK_PARTIAL}",
        *_DEEPSEEK_CLOSERS,
    ),
    _form("<｜tool▁call▁begin｜>", _DEEPSEEK, _DEEPSEEK_PARTIAL, *_DEEPSEEK_CLOSERS),
)
"""Forms whose opener says that a call begins."""

MARKERS = (
    *(marker for form in MARKED for marker in (form.opener, *form.closers)),
    *("[ARGS]", "[CALL_ID]", "<｜tool▁sep｜>"),
)
"""What is looked for in an answer that may hold calls."""

PLAIN = (
    _bare("{", ";", json_at_opener=True),
    _bare("[", ";", json_at_opener=True),
    _bare("```json", "```"),
    _bare("```tool_call", "```"),
    _bare("```tool_code", "```"),
    _bare("```\n", "```"),
)
"""Forms that count at the beginning of a line only."""


@dataclass(frozen=True, slots=True)
class Found:
    """Calls, each a name and its arguments; the text up to `end` belongs to them."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    end: int


Outcome = Found | Literal["more", "no"]


class CallReader:
    """Reads one candidate; each character is looked at once, however small the pieces are."""

    __slots__ = ("_json", "_known", "_name", "_start", "_tags", "form")

    def __init__(self, form: Form, known: Mapping[str, Mapping[str, Any]]) -> None:
        """`known` are the tools: the JSON schema of the parameters of each."""
        self.form = form
        self._known = known
        self._name: str | None = None
        self._start = -1
        self._json = JsonEnd()
        self._tags: _Tags | None = None

    def read(self, text: str) -> Outcome:
        """What `text` is, which begins with the opener and only grows from call to call."""
        if self._start < 0 and not self._find_start(text):
            rest = text[len(self.form.opener) :]
            short = len(rest) <= _MAX_HEAD + 101  # with the list's beginning that has to follow
            return "more" if short and self.form.partial.fullmatch(rest) else "no"
        if self._start - len(self.form.opener) > _MAX_HEAD:
            return "no"
        if self._tags is not None:
            return self._tags.read(text)
        if self.form.strict and not _plausible(text, self._start, self._known):
            return "no"
        end = self._json.find(text, self._start)
        if end is None:
            return "more"
        calls = self._calls(text[self._start : end]) if end >= 0 else ()
        return Found(calls, end) if calls else "no"

    def _find_start(self, text: str) -> bool:
        skipped = 0 if self.form.json_at_opener else len(self.form.opener)
        head = self.form.head.match(text, skipped)
        if head is None and self.form.tagged is not None:
            head = self.form.tagged.match(text, skipped)
            if head is not None:
                self._tags = _Tags(head["name"], head.end(), self._known.get(head["name"], {}))
        if head is None:
            return False
        self._start = head.end()
        self._name = head.groupdict().get("name")
        return True

    def _calls(self, source: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        try:
            value = loads(source)
        except (ValueError, RecursionError):
            return ()
        if self._name is not None:
            return ((self._name, value),) if isinstance(value, dict) else ()
        values = value if isinstance(value, list) else [value]
        calls = [_call(item, self._known if self.form.strict else None) for item in values]
        return tuple(call for call in calls if call) if all(calls) else ()


class _Tags:
    """Reads the parameters of a call that is written in tags, from `start` on."""

    __slots__ = ("_arguments", "_key", "_name", "_position", "_schemas", "_value")

    def __init__(self, name: str, start: int, schema: Mapping[str, Any]) -> None:
        self._name = name
        self._position = start
        properties = schema.get("properties")
        self._schemas = properties if isinstance(properties, Mapping) else {}
        self._arguments: dict[str, Any] = {}
        self._key: str | None = None
        self._value = -1
        """Where the value of `_key` begins; it has no end before `_position`."""

    def read(self, text: str) -> Outcome:
        while True:
            if self._key is not None:
                end = text.find(_END_OF_VALUE, self._position)
                if end < 0:
                    self._position = max(self._value, len(text) - len(_END_OF_VALUE) + 1)
                    return "more"
                value = _as_typed(text[self._value : end], self._schemas.get(self._key))
                self._arguments[self._key] = value
                self._key, self._position = None, end + len(_END_OF_VALUE)
            while text[self._position : self._position + 1].isspace():
                self._position += 1
            if text.startswith(_END_OF_TAGS, self._position):
                end = self._position + len(_END_OF_TAGS)
                return Found(((self._name, self._arguments),), end)
            tag = _PARAMETER.match(text, self._position)
            if tag is None:
                rest = text[self._position :]
                return "more" if _BEGINNING_OF_TAG.fullmatch(rest) else "no"
            self._key = tag[1]
            self._value = self._position = tag.end()


_END_OF_VALUE = "</parameter>"
_END_OF_TAGS = "</function>"
_PARAMETER = re.compile(r"<parameter=([^<>\n]{1,64})>")
_BEGINNING_OF_TAG = re.compile(r"(?:<(?:/?[a-z]{0,9}|parameter=[^<>\n]{0,64}))?")


class JsonEnd:
    """Finds where a JSON object or array ends, going on where the last call stopped."""

    __slots__ = ("_depth", "_in_string", "_position")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._position = -1

    def find(self, text: str, start: int) -> int | None:
        """The index after the end; None: not there yet; -1: this is no JSON."""
        position = max(self._position, start)
        while position < len(text):
            if self._in_string:
                position = self._skip_string(text, position)
                if self._in_string:
                    break
                continue
            char = text[position]
            position += 1
            if char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return position
            elif char not in _PLAIN_JSON:
                return -1
            if self._depth > _MAX_DEPTH:
                return -1
        self._position = position
        return None

    def _skip_string(self, text: str, position: int) -> int:
        """Where to go on: behind the string, or where its end is to be looked for later."""
        while found := _STRING_BREAK.search(text, position):
            if found[0] == '"':
                self._in_string = False
                return found.end()
            if found.end() == len(text):  # what is escaped has not come yet
                return found.start()
            position = found.end() + 1
        return len(text)


_STRING_BREAK = re.compile(r'["\\]')
_PLAIN_JSON = frozenset(" \t\r\n:,+-.0123456789eEtruefalsn")


# --- The shape of a call -----------------------------------------------------------------------

_ARGUMENTS = ("arguments", "parameters", "args", "input")
_KEYS = frozenset(("name", "function", "type", "id", *_ARGUMENTS))
_FIRST_KEY = re.compile(r'[\[\s]*\{\s*"([^"\\]*)("?)(?:\s*:\s*"([^"\\]*)("?))?')


def _plausible(text: str, start: int, known: Collection[str]) -> bool:
    """Whether JSON that may not be complete can still become a call of a known tool."""
    if (found := _FIRST_KEY.match(text, start)) is None:
        return re.fullmatch(r"\[?\s*\{?\s*", text[start : start + 80]) is not None
    key, key_ended, value, value_ended = found.groups()
    if not key_ended:
        return any(name.startswith(key) for name in _KEYS)
    if key not in _KEYS:
        return False
    if key != "name" or value is None:
        return True
    return value in known if value_ended else any(name.startswith(value) for name in known)


def _call(value: Any, known: Collection[str] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Name and arguments; None for what is not a call. `known` limits names and demands arguments."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name", value.get("function"))
    key = next((key for key in _ARGUMENTS if key in value), None)
    arguments = _arguments(value.get(key)) if key else {}
    if not isinstance(name, str) or not name or arguments is None:
        return None
    if known is not None and (name not in known or key is None or not value.keys() <= _KEYS):
        return None
    return name, arguments


def _arguments(value: Any) -> Mapping[str, Any] | None:
    """An object, also when it was written as a string; null is an empty one."""
    if isinstance(value, str):
        try:
            value = loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _as_typed(text: str, schema: Any) -> Any:
    """A value that is written without quotes, as its JSON schema wants it: text where that is allowed.

    The line breaks next to the tags are not part of it.
    """
    text = text.removeprefix("\n").removesuffix("\n")
    types = _types(schema)
    word = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    if word == "null" and "null" in types:
        return None
    if not types or "string" in types:
        return text
    try:
        return loads(word)
    except (ValueError, RecursionError):
        return text


def _types(schema: Any) -> set[str]:
    """The types that a schema allows, as far as it says so in plain words."""
    if not isinstance(schema, Mapping):
        return set()
    parts = [schema]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list):
            parts += [part for part in schema[choice] if isinstance(part, Mapping)]
    types = [part.get("type") for part in parts]
    named = [kind for found in types for kind in (found if isinstance(found, list) else [found])]
    return {kind for kind in named if isinstance(kind, str)}


def loads(source: str) -> Any:
    """JSON that can be written out again: no NaN, no 1e999, no half of a surrogate pair."""
    value = json.loads(source, strict=False)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value
