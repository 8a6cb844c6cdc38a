"""`rkllama run`: one answer, or a chat on the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .core import ChatRequest, Event, Message, SamplingParams
from .errors import RKLLamaError
from .service import Service
from .showing import details_text
from .terminal import AnswerPrinter, figures, joined, spinner


@dataclass(slots=True, kw_only=True)
class Options:
    """What the command line, and `/set` later, asked for."""

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    context_length: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    hide_thinking: bool = False
    keep_alive: float | None = None
    verbose: bool = False
    wordwrap: bool = True

    def request(self, model: str, messages: tuple[Message, ...]) -> ChatRequest:
        """The request for the next answer."""
        return ChatRequest(
            model=model,
            messages=messages,
            system=self.system,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            context_length=self.context_length,
            stop=self.stop,
            think=self.think,
            keep_alive=self.keep_alive,
        )


def answer_once(
    service: Service, model: str, prompt: str, options: Options, *, as_json: bool
) -> None:
    """Answer one prompt on stdout, as text or as one JSON object."""
    request = options.request(model, (Message(role="user", content=prompt),))
    if as_json:
        _print_json(service, request)
        return
    printer = AnswerPrinter(hide_thinking=options.hide_thinking, wrap=options.wordwrap)
    _print_answer(service, request, printer)
    if options.verbose and printer.finished is not None:
        sys.stderr.write("\n" + figures(printer.finished))


def _print_json(service: Service, request: ChatRequest) -> None:
    with contextlib.closing(service.stream(request)) as events:
        answer = joined(events)
    finished = answer.finished
    assert finished is not None
    values = {
        "model": finished.model,
        "content": answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": finished.reason,
        "usage": asdict(finished.usage),
        "timings": asdict(finished.timings),
    }
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")


def _print_answer(service: Service, request: ChatRequest, printer: AnswerPrinter) -> None:
    with contextlib.closing(service.stream(request)) as events:
        with spinner("Thinking…" if _is_loaded(service, request) else "Loading the model…"):
            first: Event = next(events)
        try:
            printer.show(first)
            for event in events:
                printer.show(event)
        finally:
            printer.close()


def _is_loaded(service: Service, request: ChatRequest) -> bool:
    """Whether the model is in memory; only asked for the words of the spinner."""
    if not sys.stderr.isatty():
        return True
    return any(model.info.name == request.model for model in service.loaded())


_HELP = """\
/set system TEXT            the system message
/set parameter NAME VALUE   temperature, top_k, top_p, min_p, seed, num_predict, num_ctx, stop …
/set verbose | quiet        show counts and times after each answer, or not
/set think | nothink        let the model think first, or not
/set history | nohistory    keep typed lines for the arrow keys, or not
/set wordwrap | nowordwrap  break lines at words, or not
/show [info|system|parameters|modelfile]
/load MODEL                 go on with another model
/save NAME                  save this chat, its settings included, as a model
/clear                      forget the conversation
/bye                        leave (as Ctrl-D)
/? or /help                 this text
\"\"\" begins and ends a text of several lines. Ctrl-C stops an answer.
"""

_SAMPLING = SamplingParams.__dataclass_fields__


class Chat:
    """A conversation on the terminal."""

    def __init__(self, service: Service, model: str, options: Options, home: str) -> None:
        self._service = service
        self._model = service.show(model).info.name
        self._options = options
        self._messages: list[Message] = []
        self._lines = LineReader(os.path.join(home, "history"))
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/clear": self._clear,
            "/?": self._help,
            "/help": self._help,
        }

    def loop(self) -> None:
        """Read, answer, until /bye or Ctrl-D."""
        self._preload()
        sys.stderr.write(f"Chat with {self._model}. /? for help, /bye to leave.\n")
        while (text := self._lines.read()) is not None:
            word, _, rest = text.strip().partition(" ")
            if word in ("/bye", "/exit"):
                return
            try:
                if word.startswith("/") and "\n" not in text:
                    self._command(word, rest.strip())
                elif text.strip():
                    self._answer(text)
            except RKLLamaError as error:
                sys.stderr.write(f"Error: {error.text}\n\n")

    def _preload(self) -> None:
        with spinner("Loading the model…"):
            self._service.load(
                self._model,
                keep_alive=self._options.keep_alive,
                context_length=self._options.context_length,
            )

    def _answer(self, text: str) -> None:
        messages = (*self._messages, Message(role="user", content=text))
        printer = AnswerPrinter(
            hide_thinking=self._options.hide_thinking, wrap=self._options.wordwrap
        )
        try:
            _print_answer(self._service, self._options.request(self._model, messages), printer)
        except KeyboardInterrupt:
            sys.stderr.write("(stopped)\n")
        if printer.text or printer.finished is not None:
            # What was said stays said, also when it was stopped half-way.
            self._messages = [*messages, Message(role="assistant", content=printer.text)]
        if self._options.verbose and printer.finished is not None:
            sys.stderr.write("\n" + figures(printer.finished))
        sys.stdout.write("\n")

    # --- Commands ------------------------------------------------------------------------------

    def _command(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            sys.stderr.write(f"Unknown command {word}; /? lists them.\n")
        else:
            command(rest)

    def _help(self, _rest: str) -> None:
        sys.stderr.write(_HELP)

    def _clear(self, _rest: str) -> None:
        self._messages = []
        sys.stderr.write("The conversation is forgotten.\n")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        options = self._options
        switches: dict[str, Callable[[], None]] = {
            "verbose": lambda: setattr(options, "verbose", True),
            "quiet": lambda: setattr(options, "verbose", False),
            "think": lambda: setattr(options, "think", True),
            "nothink": lambda: setattr(options, "think", False),
            "wordwrap": lambda: setattr(options, "wordwrap", True),
            "nowordwrap": lambda: setattr(options, "wordwrap", False),
            "history": lambda: self._lines.keep_history(True),
            "nohistory": lambda: self._lines.keep_history(False),
        }
        if name in switches:
            switches[name]()
            sys.stderr.write(f"Set {name}.\n")
        elif name == "system" and value:
            options.system = _unquoted(value)
            sys.stderr.write("Set the system message.\n")
        elif name == "parameter" and value:
            self._set_parameter(*value.partition(" ")[::2])
        else:
            sys.stderr.write("What to set? /? lists it.\n")

    def _set_parameter(self, name: str, value: str) -> None:
        options, value = self._options, _unquoted(value.strip())
        try:
            if name == "num_predict":
                options.max_tokens = int(value)
            elif name == "num_ctx":
                options.context_length = int(value)
            elif name == "stop":
                options.stop = (*options.stop, value)
            elif name in _SAMPLING:
                whole = name in ("top_k", "seed", "mirostat")
                number: Any = int(value) if whole else float(value)
                options.sampling = replace(options.sampling, **{name: number})
            else:
                known = ", ".join(("num_predict", "num_ctx", "stop", *_SAMPLING))
                sys.stderr.write(f"Unknown parameter {name!r}; known: {known}.\n")
                return
        except ValueError:
            sys.stderr.write(f"{name} cannot be {value!r}.\n")
            return
        sys.stderr.write(f"Set {name} to {value}.\n")

    def _parameters(self) -> list[tuple[str, str]]:
        options = self._options
        pairs = [("num_predict", options.max_tokens), ("num_ctx", options.context_length)]
        values: list[tuple[str, object]] = [*pairs, *(("stop", text) for text in options.stop)]
        values += [(name, getattr(options.sampling, name)) for name in _SAMPLING]
        return [(name, str(value)) for name, value in values if value is not None]

    def _show(self, what: str) -> None:
        details = self._service.show(self._model)
        system = self._options.system or details.system or "(none)"
        own = [f"{name} {value}" for name, value in (*details.parameters, *self._parameters())]
        texts = {
            "": details_text(details),
            "info": details_text(details),
            "system": system,
            "parameters": "\n".join(own) or "(none)",
            "modelfile": details.modelfile,
        }
        sys.stdout.write(
            texts.get(what, "Show what? info, system, parameters or modelfile.") + "\n"
        )

    def _load(self, name: str) -> None:
        if not name:
            sys.stderr.write("Which model? /load MODEL\n")
            return
        self._model = self._service.show(name).info.name
        self._messages = []
        self._preload()
        sys.stderr.write(f"Chat with {self._model}.\n")

    def _save(self, name: str) -> None:
        if not name:
            sys.stderr.write("Under which name? /save NAME\n")
            return
        self._service.create(name, self._modelfile())
        sys.stderr.write(f"Saved. To go on later: rkllama run {name}\n")

    def _modelfile(self) -> str:
        lines = [f"FROM {self._model}"]
        if self._options.system:
            lines.append(f'SYSTEM """{self._options.system}"""')
        lines += [f"PARAMETER {name} {value}" for name, value in self._parameters()]
        lines += [f'MESSAGE {m.role} """{m.content}"""' for m in self._messages]
        return "\n".join(lines) + "\n"


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


class LineReader:
    """Lines from the terminal, with editing and a history that outlives the chat."""

    def __init__(self, history: str) -> None:
        import readline

        self._readline = readline
        self._history = history
        self._keep = True
        readline.set_history_length(1000)
        readline.parse_and_bind("set enable-bracketed-paste on")
        with contextlib.suppress(OSError):
            readline.read_history_file(history)

    def keep_history(self, keep: bool) -> None:
        """Whether further lines are remembered."""
        self._keep = keep
        self._readline.set_auto_history(keep)

    def read(self) -> str | None:
        """The next text, of several lines between triple quotes; None at the end of input."""
        try:
            text = input(">>> ")
            if text.lstrip().startswith('"""'):
                text = self._several_lines(text.lstrip()[3:])
        except EOFError:
            sys.stderr.write("\n")
            return None
        except KeyboardInterrupt:
            sys.stderr.write("\nCtrl-D or /bye leaves.\n")
            return ""
        self._remember()
        return text

    def _several_lines(self, line: str) -> str:
        lines = []
        while not line.rstrip().endswith('"""'):
            lines.append(line)
            line = input("... ")
        lines.append(line.rstrip()[:-3])
        return "\n".join(lines).strip("\n")

    def _remember(self) -> None:
        if not self._keep:
            return
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._history), exist_ok=True)
            self._readline.write_history_file(self._history)
            os.chmod(self._history, 0o600)
