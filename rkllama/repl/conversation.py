"""A conversation with a model: what was said, and the next answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from ..console.answer import (
    Completion,
    check_complete,
    print_completion,
    print_figures,
    watching,
)
from ..console.loading import LoadingText
from ..console.options import ChatOptions
from ..console.pictures import take_pictures
from ..console.terminal import Spinner, WrappedText, quiet_keys
from ..service import Service, no_text_error
from ..types import Message, ModelDetails, SentImage, TextPart
from .attachments import TextFile
from .saved import SavedChat

PROMPT, CONTINUED = ">>> ", "... "
"""What stands before a line that is typed, and before a further line of the same text."""


class Conversation:
    """What was said to a model and what it answered. The commands of the chat change it."""

    def __init__(self, service: Service, model: str, options: ChatOptions) -> None:
        self.service = service
        self.model = service.show(model).info.name
        self.options = options
        self.messages: tuple[Message, ...] = ()
        self.files: list[TextFile] = []
        """What goes along with the next message."""
        self.name: str | None = None
        """The name of the saved chat that this is, or goes on from,"""
        self.kept: tuple[Message, ...] = ()
        """and the messages that it holds."""
        self.keep_history = True
        self._unanswered: tuple[tuple[Message, ...], Message] | None = None
        """A message whose answer failed, and what was said before it."""

    def preload(self, details: ModelDetails) -> None:
        """Load a model while the user types. Raises RKLLamaError, also for one that writes no text."""
        model = details.info
        if "completion" not in details.capabilities:
            raise no_text_error(model.name, details.capabilities)
        with Spinner(LoadingText(self.service, model)) as spinner, quiet_keys():
            self.service.load(
                model.name,
                keep_alive=self.options.keep_alive,
                context_length=self.options.context_length,
                sampling=self.options.sampling,
                caller=watching(spinner),
            )

    def ask(self, text: str) -> None:
        """Say something, along with the files that were read for it, and print the answer."""
        text, images = take_pictures(text)
        text = "".join(file.quoted() for file in self.files) + text
        message = Message.of("user", (*images, TextPart(text)))
        self.files = []
        self._answer(self.messages, message)

    def ask_instead(self, text: str) -> None:
        """Say something in the place of the last message, about its pictures; with an answer, that one is
        forgotten.
        """
        before, instead = self.last() or ((), None)
        shown = [] if instead is None else [p for p in instead.content if isinstance(p, SentImage)]
        text, images = take_pictures(text)
        self._answer(before, Message.of("user", (*shown, *images, TextPart(text))))

    def last(self) -> tuple[tuple[Message, ...], Message] | None:
        """Return what was said before the user's last message, and that message; None if there is none."""
        if self._unanswered is not None:
            return self._unanswered
        for number in reversed(range(len(self.messages))):
            if self.messages[number].role == "user":
                return self.messages[:number], self.messages[number]
        return None

    def undo(self) -> Message | None:
        """Take the last message and its answer back; return the message, None if there is none."""
        last = self.last()
        if last is None:
            return None
        before, message = last
        if before != self.messages:
            self.messages = before
        self._unanswered = None
        return message

    def clear(self) -> None:
        """Forget what was said."""
        self.messages = self.kept = ()
        self.files, self.name, self._unanswered = [], None, None

    def switch(self, model: str, options: ChatOptions | None = None) -> None:
        """Go on with another model, and forget what was said. Nothing is changed by one that fails."""
        before, self.options = self.options, options or self.options
        try:
            details = self.service.show(model)
            self.preload(details)
        except BaseException:
            self.options = before
            raise
        self.clear()
        self.model = details.info.name

    def resume(self, chat: SavedChat) -> None:
        """Have what was saved be what was said, and show it."""
        self.messages = self.kept = chat.messages
        self.name = chat.name
        show_messages(chat.messages, sys.stderr)

    def _answer(self, before: tuple[Message, ...], message: Message) -> None:
        self._unanswered = (before, message)
        completion = Completion()
        request = self.options.request(self.model, (*before, message))
        try:
            print_completion(
                self.service, request, completion, self.options, longer="/set num_ctx N"
            )
        except KeyboardInterrupt:
            sys.stderr.write("(stopped)\n")
        if completion.text or completion.finished is not None:
            # The completion stays in the conversation, even if it was stopped half-way.
            turn = Message.of("assistant", completion.text, reasoning=completion.reasoning or None)
            self.messages, self._unanswered = (*before, message, turn), None
        if self.options.verbose:
            print_figures(completion.finished)
        check_complete(completion.finished)
        sys.stderr.write("\n")


def show_messages(messages: Iterable[Message], stream: TextIO) -> None:
    """Write what was said before, as it looked when it was typed and answered."""
    for message in messages:
        if message.role == "user":
            show_typed(message.text, stream)
        else:
            writer = WrappedText(stream, wrap=True)
            writer.write(f"{message.text}\n\n")
            writer.finish()


def show_typed(text: str, stream: TextIO) -> None:
    """Write a message that was not typed at the prompt as if it were."""
    first, *more = text.split("\n")
    lines = [f"{PROMPT}{first}", *(f"{CONTINUED}{line}" for line in more)]
    stream.write("".join(f"{line}\n" for line in lines))


def beginning(text: str, length: int = 60) -> str:
    """Return the first line of a text that says something, cut to `length` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"
