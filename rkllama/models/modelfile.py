"""Modelfiles: what a model is made from and its defaults, in Ollama's syntax and the older RKLLama's.

    FROM qwen2.5-1.5b-instruct              FROM="qwen2.5.rkllm"
    SYSTEM \"\"\"Answer in one                HUGGINGFACE_PATH="Qwen/Qwen2.5-1.5B-Instruct"
    sentence.\"\"\"                           SYSTEM="Answer in one\\nsentence."
    PARAMETER temperature 0.5               TEMPERATURE=0.5
    PARAMETER stop "<|im_end|>"             MAX_NEW_TOKENS=512
    MESSAGE user Hello                      ENABLE_THINKING=false

Both may stand in one file: a line with "=" after its first word is of the second kind, in which
quoted text has backslash escapes. Instructions are read in any case; a line that begins with # is a
comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidRequest
from ..settings.prompt_rules import read_names
from ..settings.values import server_command
from ..types import Message, NPUParams, Role, SamplingParams

SIZE_LIMIT = 1 << 20
"""Bytes that a Modelfile may have."""


class ModelfileError(InvalidRequest):
    """A Modelfile that cannot be understood; `line` counts from 1, None where no line is to blame."""

    code = "invalid_modelfile"

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        where = f"Modelfile line {line}" if line is not None else "Modelfile"
        super().__init__(f"{where}: {message}", param="modelfile", hint=hint)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """A parsed Modelfile. `parameters` are all of them as written, in order, unknown ones included."""

    source: str | None = None
    """FROM: a model's name or file."""
    system: str | None = None
    template: str | None = None
    license: str | None = None
    adapter: str | None = None
    """ADAPTER: a LoRA file."""
    vision_encoder: str | None = None
    """VISION_ENCODER: a .rknn file, for llama.cpp a .gguf file, or "off"."""
    repository: str | None = None
    """HUGGINGFACE_PATH: where the older RKLLama took the tokenizer from."""
    parameters: tuple[tuple[str, str], ...] = ()
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What PARAMETER lines set; None where they don't. `max_tokens` -1 is "until the context is full"."""

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    context_length: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    npu: NPUParams = field(default_factory=NPUParams)
    rerank: bool | None = None
    """Whether it ranks documents, where its name does not say so."""
    yes_no_tokens: tuple[int, ...] = ()
    """The ids of a reranker's "yes" and "no"."""
    prompt_rules: tuple[str, ...] = ()
    """Names of rules, see settings/prompt_rules.py."""
    llama_server: tuple[str, ...] | None = None
    """A llama-server with arguments, or arguments, or "off"; see engine.memory."""


# --- Parameters --------------------------------------------------------------------------------


def _integer(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        if not float(text).is_integer():  # "40.0" is as good as "40"
            raise ValueError("must be a whole number") from None
        number = int(float(text))
    if abs(number) >= 1 << 63:
        raise ValueError("must have at most 63 bits")
    return number


def _number(text: str) -> float:
    number = float(text)
    if number != number or abs(number) == float("inf"):
        raise ValueError("must be a number")
    return number


def _at_least(low: float, read: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        number = read(text)
        if number < low:
            raise ValueError(f"must be at least {low}")
        return number

    return parse


def _switch(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text, 0) if text.lower().startswith("0x") else _integer(text)
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def _max_tokens(text: str) -> int:
    return max(_integer(text), -1)


def _rule_names(text: str) -> tuple[str, ...]:
    try:
        return read_names(text)
    except ValueError:
        raise ValueError("must be names of rules, such as home-assistant") from None


PROGRAM = "llama_server"
"""The parameter that names a program: it is only taken from the owner of the models directory."""
_SAMPLING: dict[str, Callable[[str], Any]] = {
    "temperature": _at_least(0, _number),
    "top_k": _integer,
    "top_p": _at_least(0, _number),
    "min_p": _at_least(0, _number),
    "repeat_penalty": _at_least(0, _number),
    "frequency_penalty": _number,
    "presence_penalty": _number,
    "mirostat": _at_least(0, _integer),
    "mirostat_tau": _at_least(0, _number),
    "mirostat_eta": _at_least(0, _number),
    "seed": _integer,
}
_OTHERS: dict[str, Callable[[str], Any]] = {
    "num_predict": _max_tokens,
    "num_ctx": _at_least(1, _integer),
    "think": _switch,
    "stop": str,
    "rerank": _switch,
    "yes_token_id": _between(0, 1 << 24),
    "no_token_id": _between(0, 1 << 24),
    "prompt_rules": _rule_names,
    PROGRAM: server_command,
}
_NPU: dict[str, Callable[[str], Any]] = {
    "base_domain_id": _between(0, 15),
    "embed_flash": _switch,
    "enabled_cpus_mask": _between(1, 0xFF),
    "enabled_cpus_num": _between(1, 8),
    "n_batch": _between(1, 100),
}
_PARAMETERS = {**_SAMPLING, **_OTHERS, **_NPU}


def read_parameters(parameters: tuple[tuple[str, str], ...]) -> Defaults:
    """Return what parameters (name, text) mean; the last of a name counts, every `stop` does.

    Unknown names and values that don't fit are passed over: `parse_modelfile` has refused the latter.
    """
    values: dict[str, Any] = {}
    for name, text in parameters:
        try:
            values[name] = _PARAMETERS[name](text)
        except (KeyError, ValueError, OverflowError):
            continue
    yes, no = values.get("yes_token_id"), values.get("no_token_id")
    return Defaults(
        sampling=SamplingParams(**{name: values.get(name) for name in _SAMPLING}),
        max_tokens=values.get("num_predict"),
        context_length=values.get("num_ctx"),
        stop=tuple(text for name, text in parameters if name == "stop" and text),
        think=values.get("think"),
        prompt_rules=values.get("prompt_rules", ()),
        npu=NPUParams(**{name: values.get(name) for name in _NPU}),
        rerank=values.get("rerank"),
        yes_no_tokens=() if yes is None or no is None else (yes, no),
        llama_server=values.get(PROGRAM),
    )


def merge_parameters(
    base: tuple[tuple[str, str], ...], over: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Return the parameters of `base` and `over`; a name that `over` has hides all of `base`'s of that
    name.
    """
    hidden = {name for name, _ in over}
    return tuple(pair for pair in base if pair[0] not in hidden) + over


def names_program(modelfile: Modelfile) -> bool:
    """Return whether a Modelfile chooses a program to run, or its arguments."""
    return any(name == PROGRAM for name, _ in modelfile.parameters)


def without_program(modelfile: Modelfile) -> Modelfile:
    """Return what is taken of a Modelfile that somebody else may have written: all but a program to run."""
    kept = tuple(pair for pair in modelfile.parameters if pair[0] != PROGRAM)
    return replace(modelfile, parameters=kept)


def parse_foreign(text: str) -> tuple[Modelfile, str | None]:
    """Return a Modelfile that came with a model, without a program that it names: whoever made it must not
    choose what runs here. The second is what to tell of that. Raises ModelfileError.
    """
    modelfile, _ = parse_leniently(text)
    if not names_program(modelfile):
        return modelfile, None
    note = f"the Modelfile's {PROGRAM} is left out: it names a program."
    return without_program(modelfile), note


# --- Reading -----------------------------------------------------------------------------------

_OLD_STYLE = re.compile(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
_WORD = re.compile(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)(?=[ \t]|$)[ \t]*", re.MULTILINE)
_TEXTS = ("system", "template", "license", "adapter", "vision_encoder")
# From newer Ollama versions, about things that are handled differently here.
_WITHOUT_MEANING = ("renderer", "parser", "requires", "draft")
_INSTRUCTIONS = ("from", "parameter", "message", *_TEXTS, *_WITHOUT_MEANING)
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_OLD_PARAMETERS = {
    "max_new_tokens": "num_predict",
    "max_context_len": "num_ctx",
    "enable_thinking": "think",
}
# Ours, for the texts that Ollama's quotes cannot hold: with escapes, as in a KEY="value" line.
_ESCAPED_MESSAGE = re.compile(r'[ \t]*MESSAGE[ \t]+(\w+)=(?=")', re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s)#.*", re.DOTALL)
_BAD_LINES = 16
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def parse_modelfile(text: str) -> Modelfile:
    """Return the Modelfile in `text`. Raises ModelfileError, which names the line."""
    if len(text) > SIZE_LIMIT:
        raise ModelfileError(f"it has more than {SIZE_LIMIT} characters")
    values: dict[str, str] = {}
    parameters: list[tuple[str, str]] = []
    messages: list[Message] = []
    for line, key, name, value in _statements(text.removeprefix("\ufeff")):
        if "\0" in value:
            raise ModelfileError("it contains a NUL character", line=line)
        if key == "parameter" and name in _PARAMETERS and name != "stop":
            value = _COMMENT.sub("", value).strip()
            if not value:
                continue  # it is not set
        if key == "parameter":
            _check(name, value, line)
            parameters.append((name, value))
        elif key == "message":
            messages.append(Message.of(_role(name, line), value))
        elif key == "from" and not value:
            raise ModelfileError("FROM needs a model's name or a file", line=line)
        elif key == "license" and key in values:
            values[key] += f"\n{value}"
        elif key not in _WITHOUT_MEANING:
            values[key] = value
    return Modelfile(
        source=values.pop("from", None),
        parameters=tuple(parameters),
        messages=tuple(messages),
        **values,
    )


def parse_leniently(text: str) -> tuple[Modelfile, tuple[str, ...]]:
    """Return the Modelfile in `text` without its bad lines, and what is wrong with those.

    Raises ModelfileError where no line is to blame, and for more bad lines than a Modelfile would have.
    """
    lines = text.split("\n")
    notes: list[str] = []
    while True:
        try:
            return parse_modelfile("\n".join(lines)), tuple(notes)
        except ModelfileError as error:
            if error.line is None or len(notes) >= _BAD_LINES:
                raise
            lines[error.line - 1] = ""
            notes.append(str(error))


def _statements(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, instruction, the name that PARAMETER and MESSAGE have, value."""
    position, line = 0, 1
    while position < len(text):
        end = _end_of_line(text, position)
        content = text[position:end].strip()
        if not content or content.startswith("#"):
            after = end + 1
        elif old := _OLD_STYLE.match(text, position, end):
            value, after = _old_value(text, old.end(), end, line)
            yield line, *_old_key(old[1].lower()), value
        elif escaped := _ESCAPED_MESSAGE.match(text, position, end):
            value, after = _old_value(text, escaped.end(), end, line)
            yield line, "message", escaped[1].lower(), value
        else:
            key, name, start = _instruction(text, position, end, line)
            value, after = _new_value(text, start, end, line)
            yield line, key, name, value
        line += text.count("\n", position, after)
        position = after


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _instruction(text: str, start: int, end: int, line: int) -> tuple[str, str, int]:
    """Return an instruction, its name if it has one, and where its value starts."""
    word = _WORD.match(text, start, end)
    key = word[1].lower() if word else ""
    if word is None or key not in _INSTRUCTIONS:
        raise ModelfileError(
            f"'{text[start:end].split()[0][:40]}' is not an instruction",
            line=line,
            hint=f"Use one of {', '.join(_INSTRUCTIONS).upper()}.",
        )
    if key not in ("parameter", "message"):
        return key, "", word.end()
    name = _WORD.match(text, word.end(), end)
    if name is None:
        raise ModelfileError(f"{key.upper()} needs a name and a value", line=line)
    return key, name[1].lower(), name.end()


def _old_key(key: str) -> tuple[str, str]:
    """Instruction and name of a KEY=value line."""
    if key in ("from", *_TEXTS):
        return key, ""
    if key == "huggingface_path":
        return "repository", ""
    return "parameter", _OLD_PARAMETERS.get(key, key)


def _new_value(text: str, start: int, end: int, line: int) -> tuple[str, int]:
    """Return a value in Ollama's syntax (no escapes), and where the next line starts."""
    if text.startswith('"""', start):
        return _triple_quoted(text, start, line)
    value = text[start:end].strip()
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        return value[1:-1], end + 1
    if not value.startswith('"') or '"' in value[1:]:
        return value, end + 1
    while end < len(text):  # text in single quotes runs on to a line that ends in one
        after = _end_of_line(text, end + 1)
        if text[end + 1 : after].rstrip().endswith('"'):
            return text[start + 1 : after].rstrip()[:-1], after + 1
        end = after
    raise ModelfileError("the quote that opens here is never closed", line=line)


def _triple_quoted(text: str, start: int, line: int) -> tuple[str, int]:
    close = text.find('"""', start + 3)
    if close < 0:
        raise ModelfileError('the """ that opens here is never closed', line=line)
    while text.startswith('"', close + 3):  # a quote just before the closing ones is text
        close += 1
    return text[start + 3 : close], _nothing_more(text, close + 3, line)


def _nothing_more(text: str, start: int, line: int) -> int:
    """Return where the next line starts; only a comment may follow a closing quote."""
    end = _end_of_line(text, start)
    if (rest := text[start:end].strip()) and not rest.startswith("#"):
        raise ModelfileError(f"unexpected '{rest[:40]}' after the closing quote", line=line)
    return end + 1


def _old_value(text: str, start: int, end: int, line: int) -> tuple[str, int]:
    """Return a value in the older RKLLama's syntax, and where the next line starts."""
    if text.startswith('"""', start):
        return _triple_quoted(text, start, line)
    quote = text[start:end][:1]
    if quote not in ('"', "'"):
        return re.sub(r"(^|\s)#.*", "", text[start:end]).strip(), end + 1
    close = start + 1
    while close < len(text) and text[close] != quote:
        close += 2 if text[close] == "\\" and quote == '"' else 1
    if close >= len(text):
        raise ModelfileError("the quote that opens here is never closed", line=line)
    value = text[start + 1 : close]
    if quote == '"':
        value = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), value)
    return value, _nothing_more(text, close + 1, line)


def _check(name: str, value: str, line: int) -> None:
    try:
        _PARAMETERS.get(name, str)(value)
    except (ValueError, OverflowError) as error:
        reason = str(error) if str(error).startswith("must") else "must be a number"
        raise ModelfileError(f"{name} cannot be {value[:40]!r}: it {reason}", line=line) from None


def _role(name: str, line: int) -> Role:
    for role in _ROLES:
        if name == role:
            return role
    raise ModelfileError(f"a message's role must be one of {', '.join(_ROLES)}", line=line)


# --- Writing -----------------------------------------------------------------------------------


def render_modelfile(modelfile: Modelfile) -> str:
    """Return the Modelfile as text that `parse_modelfile` reads back to the same value.

    Raises ModelfileError for a parameter's name that is not a word.
    """
    for name, _ in modelfile.parameters:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ModelfileError(f"{name[:40]!r} cannot be a parameter's name")
    lines = []
    if modelfile.source is not None:
        lines.append(_render("FROM", modelfile.source))
    if modelfile.repository is not None:
        lines.append(f'HUGGINGFACE_PATH="{_escape(modelfile.repository)}"')
    for key in ("template", "system", "adapter", "vision_encoder", "license"):
        if (text := getattr(modelfile, key)) is not None:
            lines.append(_render(key.upper(), text))
    lines += [_render(f"PARAMETER {name}", value) for name, value in modelfile.parameters]
    lines += [_render(f"MESSAGE {turn.role}", turn.text) for turn in modelfile.messages]
    return "".join(f"{line}\n" for line in lines)


def _render(key: str, text: str) -> str:
    """Return a line, or several; quoted where the bare text would be read otherwise."""
    plain = text and text == text.strip() and not re.search(r'[\n"\'=]', text)
    if plain and text.isprintable():
        return f"{key} {text}"
    if '"""' not in text and text.find('"', 0) != 0 and "\n" not in text and '"' not in text:
        return f'{key} "{text}"'
    if '"""' not in text and not text.endswith('"'):
        return f'{key} """{text}"""'
    return f'{key.replace("PARAMETER ", "")}="{_escape(text)}"'


def _escape(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


# --- Templates ---------------------------------------------------------------------------------

# The control tokens that only one family's prompts have, in the order of their weight.
_BETRAYING: tuple[tuple[str, str], ...] = (
    ("<|start_header_id|>", "llama3"),
    ("<start_of_turn>", "gemma"),
    ("<｜User｜>", "deepseek-r1"),
    ("<用户>", "minicpm"),
    ("[gMASK]", "chatglm3"),
    ("<<SYS>>", "llama2"),
    ("[INST]", "mistral"),
    ("<|im_start|>", "chatml"),
    ("<|end|>", "phi3"),
    ("<|user|>", "tinyllama"),
)


def is_jinja(template: str) -> bool:
    """Return whether a TEMPLATE is a Jinja chat template, which can be executed; Ollama's own are Go's."""
    return "{%" in template and "messages" in template


def template_family(template: str) -> str | None:
    """Return the family whose control tokens a template uses; None if they identify none."""
    return next((family for token, family in _BETRAYING if token in template), None)
