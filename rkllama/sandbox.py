"""Chat templates as the Hugging Face libraries read them, with bounds on time and memory.

A template comes with a model from the internet, or with a request: it can loop for ever or double a
string sixty times. Each loop and macro therefore looks at the clock, and what grows is counted.
Imported when the first template is compiled, since Jinja costs more than all the rest of a command.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .errors import InvalidRequest

MAX_SECONDS = 2.0
MAX_CHARS = 64_000_000
"""Of all strings that one rendering makes, the prompt included."""
MAX_SOURCE_CHARS = 1_000_000
_MAX_NUMBER = 1_000_000
_GO = re.compile(r"\{\{-?\s*(?:\.|\$|(?:if|else|end|range|with|template|define|block)\b)")
_WIDE = re.compile(r"\d{5}")


class BrokenTemplate(Exception):
    """The source is not a usable template; the message says why, and in which line."""


class _OutOfBounds(TemplateError):
    """The rendering took too long or made too much."""


class _Budget(threading.local):
    """What is left for the rendering that runs on this thread."""

    deadline = 0.0
    chars = 0


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks training text: its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Guards(NodeTransformer):
    """Puts a look at the clock into every loop and macro, and counts what `~` makes."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named after the node
        return self._timed(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802 - named after the node
        return self._timed(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - named after the node
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)

    def _timed(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        tick = nodes.ExprStmt(_call("tick", [], node.lineno), lineno=node.lineno)
        node.body = [tick, *node.body]
        return node


def _call(method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    target = nodes.EnvironmentAttribute(method, lineno=line)
    return nodes.Call(target, arguments, [], None, None, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """One for all templates; what belongs to a single rendering is in the thread's budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self.budget = _Budget()
        self.filters["tojson"] = _to_json
        for name in ("center", "wordwrap", "format", "urlize", "xmlattr", "pprint"):
            del self.filters[name]
        for name in ("join", "replace", "indent"):
            self.filters[name] = self._counted(self.filters[name])
        self.globals.pop("lipsum")
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_today

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Guards().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def tick(self) -> None:
        if time.monotonic() > self.budget.deadline:
            raise _OutOfBounds(f"it did not end within {MAX_SECONDS:g} s")

    def charge(self, chars: int) -> None:
        self.budget.chars -= chars
        if self.budget.chars < 0:
            raise _OutOfBounds(f"it makes more than {MAX_CHARS} characters")

    def concatenate(self, *parts: object) -> str:
        text = "".join(map(str, parts))
        self.charge(len(text))
        return text

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.charge(_size_of_result(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_arguments(function, args)
        result = super().call(context, function, *args, **kwargs)
        if isinstance(result, str):
            self.charge(len(result))
        return result

    def _check_arguments(self, function: Any, args: tuple[Any, ...]) -> None:
        if any(isinstance(value, int) and value > _MAX_NUMBER for value in args):
            raise _OutOfBounds(f"it passes a number above {_MAX_NUMBER} to a function")
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        if not isinstance(owner, str):
            return
        if method.__name__ == "format" and _WIDE.search(owner):
            raise _OutOfBounds("it formats text to a great width")
        if method.__name__ == "replace" and len(args) > 1 and len(owner) > 10_000:
            self.charge((owner.count(str(args[0])) + 1) * len(str(args[1])))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.charge(len(result))
            return result

        return counted


def _size_of_result(operator: str, left: Any, right: Any) -> int:
    """About how many characters or items `left operator right` makes, before it is made."""
    if operator == "+":
        return len(left) + len(right) if isinstance(left, str) and isinstance(right, str) else 1
    if operator == "**" and isinstance(right, int):
        return right * 8
    if operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                return len(sequence) * count
    if operator == "%" and isinstance(left, str):
        raise _OutOfBounds("it formats text with %")
    return 1


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """As in Hugging Face's libraries: no HTML escapes, non-ASCII as it is, keys in their order."""
    wanted = {k: v for k, v in options.items() if k in ("separators", "sort_keys")}
    ensure_ascii = bool(options.get("ensure_ascii", False))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **wanted)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


_today = datetime.now()  # noqa: DTZ005 - local time, as in transformers


def _strftime_today(format: str) -> str:
    """Today's date as `format` says; the time of day stands still, since a prompt that changes every
    second shares no prefix with the one before it.
    """
    global _today
    now = datetime.now()  # noqa: DTZ005 - local time, as in transformers
    if now.date() != _today.date():
        _today = now
    return _today.strftime(format)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    return _Environment()


@lru_cache(maxsize=64)
def compile_template(source: str) -> Template:
    """The compiled template, from a cache. Raises BrokenTemplate."""
    if len(source) > MAX_SOURCE_CHARS:
        raise BrokenTemplate(f"it has more than {MAX_SOURCE_CHARS} characters")
    if _GO.search(source):
        raise BrokenTemplate("it is in Go's template language, where Jinja is needed")
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise BrokenTemplate(f"line {error.lineno}: {error.message}") from error
    except Exception as error:  # a template can break the compiler in many ways
        raise BrokenTemplate(str(error) or type(error).__name__) from error


def render(template: Template, variables: Mapping[str, Any], origin: str) -> str:
    """The text. Raises InvalidRequest with the template's own words where it refuses or fails."""
    environment = _environment()
    environment.budget.deadline = time.monotonic() + MAX_SECONDS
    environment.budget.chars = MAX_CHARS
    parts = []
    try:
        for part in template.generate(variables):
            environment.charge(len(part))
            parts.append(part)
    except Exception as error:  # the template is foreign code
        reason = str(error) or type(error).__name__
        raise InvalidRequest(
            f"the chat template of {origin} cannot render this conversation: {reason}",
            param="messages",
        ) from error
    return "".join(parts)
