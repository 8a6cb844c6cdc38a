"""Llama 3: `<|python_tag|>` `{…}`, `<function=name>` `{…}` `</function>`, or nothing but JSON."""

from __future__ import annotations

from .forms import NAME, TAGS_FOLLOW, ToolFormat, marked

FORMAT = ToolFormat(
    name="llama3",
    signs=("<|python_tag|>", "ipython"),
    forms=(
        marked("<|python_tag|>", r"\s*", r"\s*(?:\[\s*)?", ";"),
        marked(
            "<function=",
            NAME + r">\s*",
            r"[\w.-]{0,64}>?\s*(?:\[\s*)?",
            "</function>",
            "</tool_call>",  # of Qwen's tags, whose opener a model left out
            tagged=NAME + TAGS_FOLLOW,
        ),
    ),
    bare_anywhere=True,
)
