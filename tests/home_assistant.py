"""What Home Assistant sends, recorded from itself.

The file holds the bodies of requests that Home Assistant 2026.11.0 (its package, on Python 3.14) sent to a
small server in the place of Ollama and of OpenAI. Its integrations `ollama` and `openai_conversation` were
set up with Assist, the devices were those of its integration `demo`, in rooms on two floors, and commands
came in by `conversation.async_converse` from satellites in two of the rooms. The server answered each command
with the call that stands in the file; what came back of it is Home Assistant's own. Texts and tools are kept
once.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "data" / "home-assistant.json"

Body = dict[str, Any]


@cache
def _recorded() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(_FILE.read_text())
    return recorded


def _system(number: int) -> str:
    recorded = _recorded()
    return "".join(recorded["texts"][part] for part in recorded["systems"][number])


def recorded_prompt(label: str, model: str) -> tuple[str, Body]:
    """The path and the body of a request for a model; the labels are `AGENT kitchen`, `AGENT bedroom`, …

    `assist` is an agent as it is set up, `clock` one with the time in its instructions, `plain` one that
    controls nothing, `openai` the other integration's. The bedroom was asked a minute after the kitchen.
    """
    entry = _recorded()["prompts"][label]
    head, *rest = entry["messages"]
    messages = [{**head, "content": _system(entry["system"])}, *rest]
    body = {**entry["rest"], entry["field"]: messages, "model": model}
    if "tools" in entry:
        body["tools"] = _recorded()["tools"][entry["tools"]]
    return entry["path"], json.loads(json.dumps(body))


def recorded_calls(model: str) -> list[Body]:
    """Requests to `/api/chat`: a command, the call that a model made of it, and what the home answered."""
    recorded, bodies = _recorded(), []
    _, body = recorded_prompt("assist kitchen", model)
    for entry in recorded["calls"]:
        system = {"role": "system", "content": _system(entry["system"])}
        bodies.append({**body, "messages": [system, *json.loads(json.dumps(entry["messages"]))]})
    return bodies
