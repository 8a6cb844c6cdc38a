"""Qwen, Hermes and many others: `<tool_call>` `{…}` `</tool_call>`.

Qwen 3.5 and Qwen 3 Coder write tags in place of JSON: `<function=name>` `<parameter=key>` text
`</parameter>` `</function>`.
"""

from __future__ import annotations

from .forms import FENCED, NAME, TAGS_FOLLOW, ToolFormat, marked

FORMAT = ToolFormat(
    name="hermes",
    signs=("<tool_call>",),
    forms=(
        marked(
            "<tool_call>",
            FENCED,
            r"[\s`json]*(?:\[\s*)?|\s*<(?:[a-z]{0,8}|function=[\w.-]{0,64}(?:>\s*)?)",
            "```",
            "</function>",
            "</tool_call>",
            tagged=r"\s*<function=" + NAME + TAGS_FOLLOW,
        ),
    ),
)
