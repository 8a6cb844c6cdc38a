"""Granite and Phi 4 mini: `<|tool_call|>` `[…]`."""

from __future__ import annotations

from .forms import FENCED, ToolFormat, marked

FORMAT = ToolFormat(
    name="granite",
    signs=("<|tool_call|>",),
    forms=(marked("<|tool_call|>", FENCED, r"[\s`json]*(?:\[\s*)?", "```", "<|/tool_call|>"),),
)
