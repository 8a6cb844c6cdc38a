"""What a chat template understands: its traits, which trials on small conversations show.

Templates say nothing about themselves: one refuses a system prompt, another wants arguments as text, a
third moves the system prompt to the last turn, so that no turn begins with the text of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..types import Message, Tool, ToolCall, ToolCallDelta
from .messages import as_dict, as_parts, one_call_each, system_to_user, tool_dicts
from .parser import AnswerParser


class Ask(Protocol):
    """Renders a trial conversation; "" where the template refuses it."""

    def __call__(self, messages: Sequence[dict[str, Any]], **variables: Any) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """`system`: system prompts stay where they are; `late_system`: also in mid-conversation.
    `alternates`: two user turns in a row are refused. `tools`: definitions are written, unless for calls
    in a form that no answer is searched for; `calls`: calls and results are, `parallel`: several in one
    turn, with arguments as text (`text_arguments`), with null as the content beside them
    (`null_content`). `empty_tools`: no tools are an empty list. `parts`: content is a list of parts, as
    for models with eyes; of a plain text not a word would be written.
    """

    system: bool = True
    late_system: bool = True
    alternates: bool = False
    tools: bool = False
    calls: bool = False
    parallel: bool = True
    text_arguments: bool = False
    null_content: bool = False
    empty_tools: bool = False
    parts: bool = False

    def as_dict(self, message: Message, *, short_ids: bool = False) -> dict[str, Any]:
        """Return the message in the form that the template takes."""
        return as_dict(
            message,
            text_arguments=self.text_arguments,
            null_content=self.null_content,
            short_ids=short_ids,
            parts=self.parts,
        )


_CALL_FORMS = tuple(
    Traits(text_arguments=text_arguments, null_content=null_content)
    for text_arguments in (False, True)
    for null_content in (True, False)
)
_MOST_CHARS = 20_000
"""How much of a trial conversation, which is short, is searched for its call, which stands at its end."""
_SYSTEM = Message.of("system", "Qs")
_USER = Message.of("user", "Qu")
_ASSISTANT = Message.of("assistant", "Qa")
_CALL = ToolCall(id="call00001", name="Qtool", arguments={"Qkey": "Qvalue"})
_CALLS = Message(role="assistant", tool_calls=(_CALL,))
_RESULT = Message.of("tool", "Qresult", tool_call_id="call00001", tool_name="Qtool")
_TOOL = Tool(name="Qtool", description="Qd", parameters={"type": "object", "properties": {}})


def find_traits(ask: Ask, source: str) -> Traits | None:
    """The traits of the template with this source; None where it cannot even write a question."""
    if parts := not _is_heard(ask) and _is_heard(_in_parts(ask)):
        ask = _in_parts(ask)
    user = _dicts(_USER)
    if not (empty_tools := not ask(user)):
        nothing: list[Any] | None = None
    elif ask(user, tools=[]):
        nothing = []
    else:
        return None
    tools = tool_dicts((_TOOL,), str)
    traits = _call_form(ask, tools)
    unreadable = traits is None and _writes_calls(ask, tools)
    return Traits(
        system=_keeps_system(ask, nothing),
        late_system="Qs" in ask(_dicts(_USER, _ASSISTANT, _SYSTEM, _USER), tools=nothing),
        alternates=not ask(_dicts(_USER, _USER), tools=nothing),
        tools="tools" in source and "Qtool" in ask(user, tools=tools) and not unreadable,
        calls=traits is not None,
        parallel=traits is None or _takes_several(ask, tools, traits),
        text_arguments=traits is not None and traits.text_arguments,
        null_content=traits is not None and traits.null_content,
        empty_tools=empty_tools,
        parts=parts,
    )


def _is_heard(ask: Ask) -> bool:
    """Whether the template writes the user's words."""
    nothings: tuple[Any, ...] = (None, [])
    return any("Qu" in ask(_dicts(_USER), tools=nothing) for nothing in nothings)


def _in_parts(ask: Ask) -> Ask:
    def asked(messages: Sequence[dict[str, Any]], **variables: Any) -> str:
        contents = [message["content"] for message in messages]
        contents = [as_parts(text) if isinstance(text, str) else text for text in contents]
        pairs = zip(messages, contents, strict=True)
        return ask([{**message, "content": content} for message, content in pairs], **variables)

    return asked


def _dicts(*messages: Message, traits: Traits = Traits()) -> list[dict[str, Any]]:
    return [traits.as_dict(message) for message in messages]


def _keeps_system(ask: Ask, nothing: Any) -> bool:
    """Return whether a system prompt is written, and in a place where it stays when the next turn comes;
    where the template moves it on, it is better kept in the first user turn.
    """
    begun, going_on = (_SYSTEM, _USER), (_SYSTEM, _USER, _ASSISTANT, _USER)
    if "Qs" not in ask(_dicts(*begun), tools=nothing):
        return False

    def grows(first: Sequence[Message], second: Sequence[Message]) -> bool:
        before = ask(_dicts(*first), tools=nothing, add_generation_prompt=False)
        return ask(_dicts(*second), tools=nothing).startswith(before)

    return grows(begun, going_on) or not grows(system_to_user(begun), system_to_user(going_on))


def _call_form(ask: Ask, tools: list[dict[str, Any]]) -> Traits | None:
    """How the template wants calls and results; None where it drops them, or writes them in a form
    that is not read from answers.
    """
    for traits in _CALL_FORMS:
        text = ask(_dicts(_USER, _CALLS, _RESULT, traits=traits), tools=tools)
        if "Qresult" in text and "None" not in text and _holds_call(text):
            return traits
    return None


def _writes_calls(ask: Ask, tools: list[dict[str, Any]]) -> bool:
    return any(
        "Qkey" in ask(_dicts(_USER, _CALLS, traits=form), tools=tools) for form in _CALL_FORMS
    )


def _holds_call(text: str) -> bool:
    """Return whether the trial's call is there, in a form that would be a call in an answer, too."""
    parser = AnswerParser(thinking=None, tools=(_TOOL,))
    events = parser.feed(text[-_MOST_CHARS:]) + parser.finish()
    calls = [event.call for event in events if isinstance(event, ToolCallDelta)]
    return any(call.name == _CALL.name and call.arguments == _CALL.arguments for call in calls)


def _takes_several(ask: Ask, tools: list[dict[str, Any]], traits: Traits) -> bool:
    both = Message(role="assistant", tool_calls=(_CALL, _CALL))
    conversation = (_USER, both, _RESULT, _RESULT)
    alone = _dicts(*one_call_each(conversation), traits=traits)
    together = _dicts(*conversation, traits=traits)
    return bool(ask(together, tools=tools)) or not ask(alone, tools=tools)
