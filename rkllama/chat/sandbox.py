"""Chat templates as the Hugging Face libraries read them, in Jinja's sandbox.

The sandbox keeps a template away from the interpreter and from what it is given to read. It bounds neither
time nor memory: whoever renders a template that he has not written does so in a process that has limits.
Imported when the first template is rendered, since Jinja costs more than all the rest of a command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .renderer import BrokenTemplate, RenderError

_MAX_REASON_CHARS = 1000


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text. Raises BrokenTemplate, RenderError, and MemoryError where there is a limit."""
    template = _compile(source)
    try:
        return template.render(variables)
    except MemoryError:
        raise
    except Exception as error:  # the template is foreign code
        raise RenderError((str(error) or type(error).__name__)[:_MAX_REASON_CHARS]) from error


@lru_cache(maxsize=64)
def _compile(source: str) -> Template:
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise BrokenTemplate(f"line {error.lineno}: {error.message}") from error
    except MemoryError:
        raise
    except Exception as error:  # a template can break the compiler in many ways
        raise BrokenTemplate(str(error) or type(error).__name__) from error


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks training text: its body is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _GenerationTag],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_today
    return environment


def _to_json(value: Any, indent: int | str | None = None, **options: Any) -> str:
    """As in Hugging Face's libraries: no HTML escapes, non-ASCII as it is, keys in their order."""
    return json.dumps(
        value,
        ensure_ascii=bool(options.get("ensure_ascii", False)),
        sort_keys=bool(options.get("sort_keys", False)),
        indent=indent,
        separators=options.get("separators"),
    )


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
