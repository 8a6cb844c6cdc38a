"""Reads one call in any form while its text arrives."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .arguments import ArgumentsReader, Grammars, are_right
from .forms import Form
from .json_text import JsonEnd, loads
from .outcome import Found, Outcome, Stray
from .tags import TagReader

_MAX_HEAD = 1000
"""Characters between opener and JSON, which are looked at again with each piece; anything longer is not
a head.
"""
_MAX_NAME = 200
"""Characters of what is no JSON in which a tool's name is waited for."""
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_KEYS = frozenset(("name", "function", "type", "id", *_ARGUMENTS))
_QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"))
"""What stands around names, not always rightly."""
_OPENING = re.compile(r"[\[\s]*\{\s*")
_MEMBER = re.compile(
    r'"([^"\\]{0,64})"\s*:\s*(?:"([^"\\]{0,64})"|-?\d[\d.]{0,30}|true|false|null)\s*,\s*'
)
"""A key and a value that holds no others, and that another key follows."""
_BEGUN_MEMBER = re.compile(r'"([^"\\]{0,64})("?)(?:\s*:\s*"([^"\\]{0,64})("?))?')


class CallReader:
    """Reads one candidate; each character is looked at once, however small the pieces are."""

    __slots__ = ("_arguments", "_grammars", "_json", "_name", "_start", "_tags", "_tools", "form")

    def __init__(
        self,
        form: Form,
        tools: Mapping[str, Mapping[str, Any]],
        grammars: Grammars | None = None,
    ) -> None:
        """`tools`: the name of each and the JSON schema of its parameters; `grammars`: those of arguments."""
        self.form = form
        self._tools = tools
        self._grammars = grammars
        self._arguments: ArgumentsReader | None = None
        self._name: str | None = None
        self._start = -1
        self._json = JsonEnd()
        self._tags: TagReader | None = None

    def read(self, text: str) -> Outcome:
        """Return what `text` is, which begins with the opener and only grows from call to call."""
        if self._start < 0 and not self._find_start(text):
            rest = text[len(self.form.opener) :]
            short = len(rest) <= _MAX_HEAD + 101  # with the list's beginning that has to follow
            return "more" if short and self.form.partial.fullmatch(rest) else "no"
        if self._start - len(self.form.opener) > _MAX_HEAD:
            return "no"
        if self._tags is not None:
            return self._tags.read(text)
        if self.form.strict and not _plausible(text, self._start, self._tools):
            return "no"
        if self._arguments is not None and (stray := self._arguments.read(text)):
            return stray
        end = self._json.find(text, self._start)
        if end is None:
            return "more"
        calls = self._calls(text[self._start : end]) if end >= 0 else ()
        if calls and self._are_right(calls):
            return Found(calls, end)
        if stray := self._stray_call(text):
            return stray
        if calls:
            return Found(calls, end)
        short = end < 0 and len(text) - self._start <= _MAX_NAME  # it may yet name a tool
        return "more" if short and self._mends else "no"

    def unfinished(self, text: str) -> Stray | None:
        """Return the arguments that have begun and not ended, or the whole call."""
        if self._tags is not None:
            return self._tags.unfinished(text)
        if self._arguments is None:
            return None
        return self._arguments.open() or self._stray_call(text)

    def _are_right(self, calls: tuple[tuple[str, Mapping[str, Any]], ...]) -> bool:
        grammars, arguments = self._grammars, self._arguments
        if grammars is None or arguments is None or arguments.count == len(calls):
            return True
        return all(are_right(values, grammars(name)) for name, values in calls)

    @property
    def _mends(self) -> bool:
        """Whether JSON that is no call is written again as one."""
        return self._arguments is not None and self._name is None and not self.form.strict

    def _stray_call(self, text: str) -> Stray | None:
        """Return the JSON of a call that is none, where it names one of the tools and no other."""
        if not self._mends:
            return None
        source = text[self._start :]
        named = [name for name in self._tools if any(f"{a}{name}{b}" in source for a, b in _QUOTES)]
        return Stray(named[0], self._start, whole=True) if len(named) == 1 else None

    def go_on(self, end: int, *, whole: bool) -> None:
        """Go on where arguments that were wrong, or the whole call, have been replaced, up to `end`."""
        self._json = JsonEnd()
        if whole or self._arguments is None:  # it is taken as it is
            self._arguments = self._tags = None
        else:
            self._arguments.go_on(end)

    def _find_start(self, text: str) -> bool:
        skipped = 0 if self.form.json_at_opener else len(self.form.opener)
        head = self.form.head.match(text, skipped)
        if head is None and self.form.tagged is not None:
            head = self.form.tagged.match(text, skipped)
            if head is not None:
                self._tags = self._tag_reader(head["name"], head.end())
        if head is None:
            return False
        self._start = head.end()
        self._name = head.groupdict().get("name")
        if self._grammars is not None and self._tags is None:
            self._arguments = ArgumentsReader(self._grammars, self._start, self._name)
        return True

    def _tag_reader(self, name: str, start: int) -> TagReader:
        place = self._grammars(name) if self._grammars is not None else None
        return TagReader(name, start, self._tools.get(name, {}), place)

    def _calls(self, source: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        try:
            value = loads(source)
        except (ValueError, RecursionError):
            return ()
        if self._name is not None:
            return ((self._name, value),) if isinstance(value, dict) else ()
        values = value if isinstance(value, list) else [value]
        calls = [_call(item, self._tools if self.form.strict else None) for item in values]
        return tuple(call for call in calls if call) if all(calls) else ()


# --- The shape of a call -----------------------------------------------------------------------


def _plausible(text: str, start: int, tools: Collection[str]) -> bool:
    """Return whether JSON that may not be complete can still become a call of a known tool."""
    if (opening := _OPENING.match(text, start)) is None:
        return re.fullmatch(r"\[?\s*", text[start : start + 80]) is not None
    at = opening.end()
    while at - start < _MAX_HEAD and (member := _MEMBER.match(text, at)):
        if member[1] not in _KEYS or (member[1] == "name" and member[2] not in tools):
            return False
        at = member.end()
    if (begun := _BEGUN_MEMBER.match(text, at)) is None:
        return at == len(text)
    key, key_ended, value, value_ended = begun.groups()
    if not key_ended:
        return any(name.startswith(key) for name in _KEYS)
    if key not in _KEYS:
        return False
    if key != "name" or value is None:
        return True
    return value in tools if value_ended else any(name.startswith(value) for name in tools)


def _call(value: Any, tools: Collection[str] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Name and arguments; None for what is not a call. `tools` limits names and demands arguments."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name", value.get("function"))
    key = next((key for key in _ARGUMENTS if key in value), None)
    arguments = _arguments(value.get(key)) if key else {}
    if not isinstance(name, str) or not name or arguments is None:
        return None
    if tools is not None and (name not in tools or key is None or not value.keys() <= _KEYS):
        return None
    return name, arguments


def _arguments(value: Any) -> Mapping[str, Any] | None:
    """Return an object, also when it was written as a string; null is an empty one."""
    if isinstance(value, str):
        try:
            value = loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None
