"""What models of every family write, too: bare JSON, and JSON in a code fence."""

from __future__ import annotations

from .forms import bare

FORMS = (
    bare("{", ";", json_at_opener=True),
    bare("[", ";", json_at_opener=True),
    bare("```json", "```"),
    bare("```tool_call", "```"),
    bare("```tool_code", "```"),
    bare("```\n", "```"),
)
