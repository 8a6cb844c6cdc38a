"""DeepSeek: `<｜tool▁call▁begin｜>function<｜tool▁sep｜>name` `{…}`, from 3.1 on without "function"."""

from __future__ import annotations

from .forms import FENCED, NAME, ToolFormat, marked

_HEAD = rf"(?:function<｜tool▁sep｜>)?{NAME}(?:\s*<｜tool▁sep｜>)?" + FENCED
_PARTIAL = r"[\w.<｜▁-]{0,96}(?:｜>)?[\w.-]{0,64}(?:\s*[<｜\w▁]{1,12}(?:｜>)?)?[\s`json]*(?:\[\s*)?"
_CLOSERS = ("```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")

FORMAT = ToolFormat(
    name="deepseek",
    signs=("<｜tool▁calls▁begin｜>",),
    forms=(
        marked(
            "<｜tool▁calls▁begin｜>",
            rf"\s*<｜tool▁call▁begin｜>{_HEAD}",
            rf"\s*[<｜\w▁]{{0,18}}|\s*<｜tool▁call▁begin｜>{_PARTIAL}",
            *_CLOSERS,
        ),
        marked("<｜tool▁call▁begin｜>", _HEAD, _PARTIAL, *_CLOSERS),
    ),
    separators=("<｜tool▁sep｜>",),
)
