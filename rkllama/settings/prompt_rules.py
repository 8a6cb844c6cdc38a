"""The setting `prompt_rules`: which lines of a system prompt change, for which models and which clients.

A line is told by a pattern in which `*` stands for any text, and everything else for itself. That is less
than a regular expression on purpose: it is compared in one pass, whatever the pattern and whatever a client
sends. With the bound that chat.moving has for the text, no rule can hold up the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Place = Literal["first", "last"]

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "home-assistant": (
        "You are in area * and all generic commands *",
        "When a user asks to turn on all devices of a specific type*",
        "This device is not able to start timers*",
        "Current time is *. Today's date is *",
    ),
}
"""The rules that need no `lines`. Home Assistant's lines tell where the speaker is, and the time."""

_MOST_RULES = 32
_MOST_LINES = 64
_LONGEST_LINE = 500
_FIELDS = ("name", "lines", "before", "models", "keys")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRule:
    """Lines of the system prompt that go behind it: into the `first` or the `last` of the user's messages.

    `models` are patterns of names, `keys` API keys; None is each of them. Without either a rule counts for
    every request; with an empty list only for the models whose Modelfile names it.
    """

    name: str
    lines: tuple[str, ...]
    before: Place = "first"
    models: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.name

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as JSON, without its keys: of these only the number."""
        return {
            "name": self.name,
            "lines": list(self.lines),
            "before": self.before,
            "models": None if self.models is None else list(self.models),
            "keys": None if self.keys is None else len(self.keys),
        }

    def applies_to(self, model: str, key: str) -> bool:
        """Return whether the rule counts for a model and the API key of a client, "" for none."""
        if self.models is not None:
            name = model.lower()
            if not any(matches(pattern.lower(), name) for pattern in self.models):
                return False
        return self.keys is None or key in self.keys


def matches(pattern: str, text: str) -> bool:
    """Return whether `text` is `pattern`, whose `*` stand for any texts."""
    head, rest = _parts(pattern)
    if not text.startswith(head):
        return False
    if not rest:
        return text == head
    *middle, tail = rest
    at = len(head)
    for part in middle:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - len(tail) >= at and text.endswith(tail)


@lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[str, tuple[str, ...]]:
    head, *rest = pattern.split("*")
    return head, tuple(rest)


def built_in(name: str) -> PromptRule | None:
    """Return the built-in rule of this name."""
    lines = BUILT_IN.get(name)
    return PromptRule(name=name, lines=lines) if lines else None


def read_names(text: str) -> tuple[str, ...]:
    """Return the names in a text, separated by commas or spaces. Raises ValueError for what is not one."""
    return tuple(map(_name, text.replace(",", " ").split()))


def read_rules(
    value: object, read_keys: Callable[[object], Iterable[str]]
) -> tuple[PromptRule, ...]:
    """Return the rules that the setting holds: names of built-in ones, or tables.

    `read_keys` returns the API keys that are written in a table. Raises ValueError, which names no key.
    """
    entries = read_names(value) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise ValueError(
            "it must be names of rules, or tables: [[prompt_rules]] with name = and lines ="
        )
    if len(entries) > _MOST_RULES:
        raise ValueError(f"there must be at most {_MOST_RULES} rules")
    rules = tuple(_rule(entry, read_keys) for entry in entries)
    names = [rule.name for rule in rules]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the rule {twice} is there twice")
    return rules


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            "a rule's name has letters, digits, dots and dashes, such as home-assistant"
        )
    return value


def _rule(entry: object, read_keys: Callable[[object], Iterable[str]]) -> PromptRule:
    if not isinstance(entry, Mapping):
        name = _name(entry)
        return PromptRule(name=name, lines=_lines(name, None))
    if unknown := sorted(set(entry) - {*_FIELDS}):
        raise ValueError(
            f"a rule has no field {', '.join(unknown)}: its fields are {', '.join(_FIELDS)}"
        )
    name = _name(entry.get("name"))
    before = entry.get("before", "first")
    if before not in ("first", "last"):
        raise ValueError(f"before of the rule {name} must be first or last")
    keys = entry.get("keys")
    return PromptRule(
        name=name,
        lines=_lines(name, entry.get("lines")),
        before=before,
        models=None if "models" not in entry else _texts(name, "models", entry["models"]),
        keys=None if keys is None else tuple(read_keys(keys)) if keys else (),
    )


def _texts(name: str, field: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise ValueError(f"{field} of the rule {name} must be a list of texts")
    return tuple(values)


def _lines(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        if name not in BUILT_IN:
            raise ValueError(
                f"there is no built-in rule {name}, only {' and '.join(BUILT_IN)}; "
                "one of your own needs lines, in a table of config.toml"
            )
        return BUILT_IN[name]
    lines = tuple(line.strip() for line in _texts(name, "lines", value))
    if not lines or len(lines) > _MOST_LINES:
        raise ValueError(f"the rule {name} must have between 1 and {_MOST_LINES} lines")
    for line in lines:
        _check_line(name, line)
    return lines


def _check_line(name: str, line: str) -> None:
    if not line.replace("*", "").strip():
        raise ValueError(f"a line of the rule {name} must have more than *: it would match all")
    if len(line) > _LONGEST_LINE or not line.isprintable():
        raise ValueError(
            f"a line of the rule {name} must be one line of at most {_LONGEST_LINE} characters"
        )


def find_rules(
    rules: Collection[PromptRule], names: Iterable[str], model: str, key: str
) -> tuple[tuple[PromptRule, ...], tuple[str, ...]]:
    """Return the rules that count for a request, and which of the names are none.

    `rules` are the setting's, `names` those that the model's Modelfile has, `key` is the client's API key.
    """
    own = {rule.name: rule for rule in rules}
    chosen = {rule.name: rule for rule in rules if rule.applies_to(model, key)}
    unknown = []
    for name in names:
        if rule := own.get(name) or built_in(name):
            chosen[name] = rule
        else:
            unknown.append(name)
    return tuple(chosen.values()), tuple(unknown)
