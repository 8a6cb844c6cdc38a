"""Mistral: `[TOOL_CALLS]` `[…]`, or `[TOOL_CALLS]name[ARGS]` `{…}`, with an id between the two or not."""

from __future__ import annotations

from .forms import NAME, ToolFormat, marked

FORMAT = ToolFormat(
    name="mistral",
    signs=("[TOOL_CALLS]",),
    forms=(
        marked(
            "[TOOL_CALLS]",
            rf"\s*(?:{NAME}(?:\s*\[CALL_ID\]\w{{1,64}}(?:\[ARGS\])?|\s*\[ARGS\])?\s*)?",
            r"\s*(?:\[\s*)?|\s*[\w.-]{1,64}\s*(?:\[[\w\[\]]{0,80}\s*(?:\[\s*)?)?",
        ),
    ),
    separators=("[ARGS]", "[CALL_ID]"),
)
