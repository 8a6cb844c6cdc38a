"""Chat templates as the Hugging Face libraries read them, with bounds on time and memory.

A template comes with a model from the internet, or with a request: it can loop for ever, double a
string sixty times, or compute with a number of a million digits. Whatever it does therefore passes by
its budget (`bounds`): loops, calls, filters and tests look at the clock, and what grows is counted.
Imported when the first template is compiled, since Jinja costs more than all the rest of a command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..errors import InvalidRequest
from .budget import Budget, OutOfBounds, check_counts

MAX_SECONDS = 2.0
MAX_SOURCE_CHARS = 200_000
_MAX_NODES = 10_000
"""Compiling takes some 0.1 ms for each, and the rest of the process waits for it."""
_MAX_REASON_CHARS = 1000
_MAX_INDENT = 16
_MAX_FORMAT_CHARS = 200
_GO = re.compile(r"\{\{-?\s*(?:[.$]|(?:if|range|with)\s+[\w.$(]|(?:template|define|block)\s+[\"`])")
"""What only Go's templates have: `{{ block }}` or `{{ range(3) }}` can be Jinja's."""

_REMOVED = (
    *("center", "filesizeformat", "format", "pprint", "striptags", "urlencode", "urlize"),
    *("wordcount", "wordwrap", "xmlattr"),
)
"""Filters for web pages, whose cost cannot be foreseen."""
_COUNTING = frozenset(("batch", "indent", "round", "slice", "truncate"))
"""Filters that are told a width, a number of times or of digits."""
_ITEM_BY_ITEM = frozenset(
    (
        *(
            "batch",
            "groupby",
            "join",
            "list",
            "map",
            "max",
            "min",
            "reject",
            "rejectattr",
            "select",
        ),
        *("selectattr", "slice", "sort", "sum", "title", "unique"),
    )
)
"""Filters that take a text apart, with much more than a character's cost for each."""
_DENIED = frozenset(
    ("encode", "expandtabs", "format_map", "maketrans", "translate", "striptags", "unescape")
)
"""Methods of strings whose cost cannot be foreseen."""
_JINJA_S_OWN = frozenset(("_loop_vars", "_block_vars"))
"""Keywords in every call that no function gets to see."""


class BrokenTemplate(Exception):
    """The source is not a usable template; the message says why, and in which line."""


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks training text: its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Guards(NodeTransformer):
    """Lets the budget see what Jinja does without asking its environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named after the node
        return self._timed(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802 - named after the node
        return self._timed(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - named after the node
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802 - named after the node
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802 - named after the node
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - named after the node
        return self._made(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - named after the node
        is_slice = isinstance(node.arg, nodes.Slice)
        return self._made(node) if is_slice else self.generic_visit(node)

    def _made(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _call("made", [node], node.lineno)

    def _timed(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node, nodes.For) and isinstance(node.test, nodes.Expr):
            node.test = _call("made", [node.test], node.lineno)
        tick = nodes.ExprStmt(_call("tick", [], node.lineno), lineno=node.lineno)
        node.body = [tick, *node.body]
        return node


def _call(method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    target = nodes.EnvironmentAttribute(method, lineno=line)
    return nodes.Call(target, arguments, [], None, None, lineno=line)


class _OpaqueNamespace(Namespace):
    """One that is not written out: it may hold itself, or others that hold each other twice."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Environment(ImmutableSandboxedEnvironment):
    """One for all templates; what belongs to a single rendering is in the thread's budget."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        self.budget = Budget()
        self.tick, self.made = self.budget.tick, self.budget.made
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self.budget.spend,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        for name in _REMOVED:
            del self.filters[name]
        self.filters.update(
            indent=self._indent,
            join=self._join,
            replace=self._replace,
            sum=self._sum,
            tojson=self._to_json,
        )
        for table in (self.filters, self.tests):
            for name, function in table.items():
                table[name] = self._guarded(name, function)
        self.globals.pop("lipsum")
        self.globals["namespace"] = _OpaqueNamespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_today

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > _MAX_NODES:
            raise OutOfBounds(f"it has more than {_MAX_NODES} parts")
        tree = _Guards().visit(tree)
        tree.set_environment(self)
        return tree

    def concat(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        self.budget.charge(sum(map(len, parts)))
        return "".join(parts)

    def concatenate(self, *parts: object) -> str:
        return "".join([str(self.budget.spend(part)) for part in parts])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        unbounded = isinstance(obj, int | float | bytes) or (
            isinstance(obj, str) and attr in _DENIED
        )
        return not unbounded and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.check_operation(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        self.budget.weigh(result)
        return result

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function in (self.tick, self.made, self.concatenate):
            return function(*args)
        # Inside a loop Jinja adds the variables that the template has set there.
        values = (*args, *(value for name, value in kwargs.items() if name not in _JINJA_S_OWN))
        self.budget.check_arguments(values)
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            if method.__name__ == "join":
                values = args = tuple(map(list, args))  # what a generator yields can be counted so
            self.budget.check_method(text, method.__name__, values)
        return self.budget.made(super().call(context, function, *args, **kwargs))

    def _guarded(self, name: str, function: Any) -> Callable[..., Any]:
        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            values = (*args, *kwargs.values())
            self.budget.check_arguments(values)
            if name in _COUNTING:
                check_counts(values[1:])
            if name in _ITEM_BY_ITEM:
                check_counts(len(value) for value in values[:2] if isinstance(value, str))
            return self.budget.made(function(*args, **kwargs))

        return guarded

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = map(make_attrgetter(self, attribute), value)
        texts = [str(self.budget.spend(item)) for item in value]
        self.budget.check_method(str(d), "join", (texts,))
        return str(d).join(texts)

    def _replace(self, s: str, old: str, new: str, count: int | None = None) -> str:
        wanted = (str(old), str(new), -1 if count is None else count)
        self.budget.check_method(str(s), "replace", wanted)
        return str(s).replace(*wanted)

    def _sum(self, iterable: Iterable[Any], attribute: str | None = None, start: Any = 0) -> Any:
        if attribute is not None:
            iterable = map(make_attrgetter(self, attribute), iterable)
        total = start
        for item in iterable:
            self.budget.tick()
            self.budget.check_operation("+", total, item)
            total = total + item
        return total

    def _indent(
        self, s: str, width: int | str = 4, first: bool = False, blank: bool = False
    ) -> str:
        size = width if isinstance(width, int) else len(width)
        self.budget.charge(len(s) + size * (len(s.splitlines()) + 1))
        return do_indent(s, width, first, blank)

    def _to_json(self, value: Any, indent: int | str | None = None, **options: Any) -> str:
        """As in Hugging Face's libraries: no HTML escapes, non-ASCII as it is, keys in their order."""
        separators = options.get("separators")
        for space in (indent, *(separators or ())):
            if (len(space) if isinstance(space, str) else space or 0) > _MAX_INDENT:
                raise OutOfBounds(f"it indents JSON by more than {_MAX_INDENT}")
        encoder = json.JSONEncoder(
            ensure_ascii=bool(options.get("ensure_ascii", False)),
            sort_keys=bool(options.get("sort_keys", False)),
            indent=indent,
            separators=separators,
        )
        return "".join(map(self.budget.spend, encoder.iterencode(value)))


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
    if len(format) > _MAX_FORMAT_CHARS:
        raise OutOfBounds(f"it formats a date with more than {_MAX_FORMAT_CHARS} characters")
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
    environment = _environment()
    try:
        with environment.budget.running(MAX_SECONDS):  # what is constant is computed here
            return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise BrokenTemplate(f"line {error.lineno}: {error.message}") from error
    except Exception as error:  # a template can break the compiler in many ways
        raise BrokenTemplate(str(error) or type(error).__name__) from error


def render(template: Template, variables: Mapping[str, Any], origin: str) -> str:
    """The text. Raises InvalidRequest with the template's own words where it refuses or fails, because
    of OutOfBounds where that would cost too much.
    """
    environment = _environment()
    try:
        with environment.budget.running(MAX_SECONDS):
            return "".join(map(environment.budget.spend, template.generate(variables)))
    except Exception as error:  # the template is foreign code
        reason = str(error) or type(error).__name__
        raise InvalidRequest(
            f"the chat template of {origin} cannot render this conversation: "
            f"{reason[:_MAX_REASON_CHARS]}",
            param="messages",
        ) from error
