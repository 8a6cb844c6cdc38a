"""`rkllama run`: one answer, or a chat on the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import RKLLamaError
from ..service import Service, no_text_error
from ..types import Message, ModelDetails
from .answer import (
    Completion,
    check_complete,
    explained,
    print_completion,
    print_figures,
    print_json,
)
from .inputs import check_no_picture
from .loading import LoadingText
from .options import PARAMETERS, ChatOptions
from .output import print_error, write_styled
from .show import details_text, part_text, two_columns
from .terminal import Spinner, quiet_keys

_LONGER_ONCE = "--ctx N"


def answer_once(
    service: Service, model: str, prompt: str, options: ChatOptions, *, as_json: bool
) -> None:
    """Answer one prompt on stdout, as text or as one JSON object. Raises RKLLamaError, also for an
    answer that was broken off.
    """
    request = options.request(model, (Message.of("user", prompt),))
    if as_json:
        with explained(_LONGER_ONCE):
            check_complete(print_json(service, request))
        return
    completion = Completion()
    print_completion(
        service,
        request,
        completion,
        hide_thinking=options.hide_thinking,
        wrap=options.wordwrap,
        longer=_LONGER_ONCE,
    )
    if options.verbose:
        print_figures(completion.finished)
    check_complete(completion.finished)


_HELP: tuple[tuple[str, str], ...] = (
    ("/set system TEXT", 'set the system message; "" removes it'),
    (
        "/set parameter NAME VALUE",
        "temperature, top_k, top_p, seed, num_predict, num_ctx, stop …",
    ),
    ("/set verbose | quiet", "show or hide counts and timings after each answer"),
    ("/set think | nothink", "turn thinking before the answer on or off"),
    ("/set history | nohistory", "turn the history of typed lines on or off"),
    ("/set wordwrap | nowordwrap", "turn line breaks between words on or off"),
    ("/set format json|noformat", "have the answers be JSON, or not"),
    ("/show [PART]", "info, system, parameters, modelfile, license or template"),
    ("/load MODEL", "switch to another model or a saved chat"),
    ("/save NAME", "save this chat and its settings as a model"),
    ("/clear", "forget the conversation"),
    ("/bye", "leave (also Ctrl-D)"),
    ("/?", "show this help"),
)
_HELP_TAIL = """
Write \"\"\" around a text of several lines.
TAB completes commands and names of models.
Ctrl-C stops an answer.
"""


class Chat:
    """A conversation on the terminal."""

    def __init__(self, service: Service, model: str, options: ChatOptions, home: str) -> None:
        from .line_reader import LineReader

        self._service = service
        self._model = service.show(model).info.name
        self._options = options
        self._messages: list[Message] = []
        self._lines = LineReader(os.path.join(home, "history"), self._complete)
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
        self._preload(self._service.show(self._model))
        sys.stderr.write(f"Chat with {self._model}. /? for help, /bye to leave.\n")
        while (text := self._lines.read()) is not None:
            word, _, rest = text.strip().partition(" ")
            if word in ("/bye", "/exit"):
                return
            try:
                if self._is_command(word, text):
                    self._command(word, rest.strip())
                elif text.strip():
                    self._answer(text)
            except RKLLamaError as error:
                print_error(error)
            except KeyboardInterrupt:
                sys.stderr.write("(stopped)\n")

    def _preload(self, details: ModelDetails) -> None:
        model = details.info
        if "completion" not in details.capabilities:
            raise no_text_error(model.name)
        with Spinner(LoadingText(self._service, model)), quiet_keys():
            self._service.load(
                model.name,
                keep_alive=self._options.keep_alive,
                context_length=self._options.context_length,
                sampling=self._options.sampling,
            )

    def _answer(self, text: str) -> None:
        check_no_picture(text)
        messages = (*self._messages, Message.of("user", text))
        request = self._options.request(self._model, messages)
        completion = Completion()
        try:
            print_completion(
                self._service,
                request,
                completion,
                hide_thinking=self._options.hide_thinking,
                wrap=self._options.wordwrap,
                longer="/set num_ctx N",
            )
        except KeyboardInterrupt:
            sys.stderr.write("(stopped)\n")
        if completion.text or completion.finished is not None:
            # The completion stays in the conversation, even if it was stopped half-way.
            turn = Message.of("assistant", completion.text, reasoning=completion.reasoning or None)
            self._messages = [*messages, turn]
        if self._options.verbose:
            print_figures(completion.finished)
        check_complete(completion.finished)
        sys.stderr.write("\n")

    # --- Commands ------------------------------------------------------------------------------

    def _is_command(self, word: str, text: str) -> bool:
        """Return whether a text is a command; a path at its beginning, or a pasted comment, is not."""
        if word in self._commands:
            return True
        return word.startswith("/") and "/" not in word[1:] and "\n" not in text.strip()

    def _command(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            sys.stderr.write(f"Unknown command {word}. /? lists the commands.\n")
        else:
            command(rest)

    def _complete(self, typed: str) -> list[str]:
        """Return what the word at the end of a command may be; text for the model is not completed."""
        words = typed.split(" ")
        if len(words) == 1:
            return [*self._commands, "/bye"] if typed.startswith("/") else []
        if words[:-1] == ["/load"]:
            with contextlib.suppress(RKLLamaError):
                return [info.name for info in self._service.models()]
        return list(_CHOICES.get(" ".join(words[:-1]), ()))

    def _help(self, _rest: str) -> None:
        sys.stderr.write(two_columns(_HELP, indent="", stream=sys.stderr) + _HELP_TAIL)

    def _clear(self, _rest: str) -> None:
        self._messages = []
        sys.stderr.write("Cleared the conversation.\n")

    def _set(self, rest: str) -> None:
        name, _, value = (part.strip() for part in rest.partition(" "))
        if name in _SWITCHES and not value:
            self._options = replace(self._options, **_SWITCHES[name])
            sys.stderr.write(f"Set {name}.\n")
        elif name in ("history", "nohistory") and not value:
            self._lines.keep_history(name == "history")
            sys.stderr.write(f"Set {name}.\n")
        elif name == "format" and value == "json":
            self._options = replace(self._options, format="json")
            sys.stderr.write("Set format to json.\n")
        elif name == "system" and value:
            self._options = replace(self._options, system=_unquoted(value))
            sys.stderr.write("Set the system message.\n")
        elif name == "parameter" and " " in value:
            self._set_parameter(*value.split(None, 1))
        elif name in PARAMETERS and value:  # many leave the word "parameter" out
            self._set_parameter(name, value)
        else:
            sys.stderr.write(_SET_USAGE)

    def _set_parameter(self, name: str, text: str) -> None:
        self._options = self._options.with_parameter(name, _unquoted(text))
        sys.stderr.write(f"Set {name} to {text}.\n")

    def _show(self, what: str) -> None:
        details = self._service.show(self._model)
        if what in ("", "info"):
            write_styled(f"{details_text(details)}\n")
            return
        if what == "system":
            own = self._options.system
            text = (details.system if own is None else own) or "(none)"
        elif what == "parameters":
            from ..models.modelfile import merge_parameters

            merged = merge_parameters(details.parameters, self._options.parameters())
            text = "\n".join(f"{name:<18}{value}" for name, value in merged) or "(none)"
        elif what in ("modelfile", "license", "template"):
            text = part_text(details, what).rstrip("\n") or "(none)"
        else:
            sys.stderr.write(
                "/show takes info, system, parameters, modelfile, license or template.\n"
            )
            return
        sys.stdout.write(text + "\n")

    def _load(self, name: str) -> None:
        if not name:
            sys.stderr.write("Which model? /load MODEL\n")
            return
        details = self._service.show(name)
        self._preload(details)
        self._model, self._messages = details.info.name, []
        sys.stderr.write(f"Chat with {self._model}.\n")

    def _save(self, name: str) -> None:
        if not name:
            sys.stderr.write("Under which name? /save NAME\n")
            return
        saved = self._service.create(name, self._modelfile()).name
        sys.stderr.write(f"Saved. To continue later: rkllama run {saved}\n")

    def _modelfile(self) -> str:
        """Return the model's Modelfile, with the settings and messages of this chat."""
        from ..models.modelfile import (
            merge_parameters,
            parse_modelfile,
            render_modelfile,
            without_program,
        )

        details = self._service.show(self._model)
        own = without_program(parse_modelfile(details.modelfile))  # it is not taken over HTTP
        system = self._options.system
        return render_modelfile(
            replace(
                own,
                source=details.parent or details.info.name,
                system=own.system if system is None else system,
                parameters=merge_parameters(own.parameters, self._options.parameters()),
                messages=(*own.messages, *self._messages),
            )
        )


_SWITCHES: dict[str, dict[str, Any]] = {
    "verbose": {"verbose": True},
    "quiet": {"verbose": False},
    "think": {"think": True},
    "nothink": {"think": False},
    "wordwrap": {"wordwrap": True},
    "nowordwrap": {"wordwrap": False},
    "noformat": {"format": None},
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "/set": (*_SWITCHES, "format", "history", "nohistory", "parameter", "system"),
    "/set parameter": PARAMETERS,
    "/set format": ("json",),
    "/show": ("info", "system", "parameters", "modelfile", "license", "template"),
}
"""What may follow the words of a command."""
_SET_USAGE = """\
/set system TEXT
/set parameter NAME VALUE
/set format json
/set verbose | quiet | think | nothink | history | nohistory | wordwrap | nowordwrap | noformat
"""


def _unquoted(text: str) -> str:
    for quote in ('"""', '"', "'"):
        if len(text) >= 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            return text[len(quote) : -len(quote)]
    return text
