"""A conversation with a model: what was said, and the next answer."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
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
from ..console.output import human_size
from ..console.pictures.files import (
    check_sees,
    path_alone,
    read_picture,
    shown_names,
    take_pictures,
)
from ..console.terminal import Spinner, WrappedText, quiet_keys
from ..service import Service, no_text_error
from ..types import Message, ModelDetails, SentImage
from .attachments import TextFile, pictures_of, with_pictures
from .saved import SavedChat

PROMPT, CONTINUED = ">>> ", "... "
"""What stands before a line that is typed, and before a further line of the same text."""


class Conversation:
    """What was said to a model and what it answered. The commands of the chat change it."""

    def __init__(
        self,
        service: Service,
        model: str,
        options: ChatOptions,
        pictures: Sequence[SentImage] = (),
    ) -> None:
        self.service = service
        self.model = service.show(model).info.name
        self.options = options
        self.messages: tuple[Message, ...] = ()
        self.files: list[TextFile] = []
        self.pictures = [*pictures]
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
        check_sees(details, self.pictures)
        with Spinner(LoadingText(self.service, model)) as spinner, quiet_keys():
            self.service.load(
                model.name,
                keep_alive=self.options.keep_alive,
                context_length=self.options.context_length,
                sampling=self.options.sampling,
                caller=watching(spinner),
            )

    def ask(self, text: str) -> None:
        """Say something, along with the files and pictures for it, and print the answer.

        The path of a picture alone is one that goes along with the next message.
        """
        if path := path_alone(text):
            self.attach([read_picture(path)])
            return
        text, pictures = self._taken(text, len(self.pictures))
        message = with_pictures(
            "".join(file.quoted() for file in self.files) + text, [*self.pictures, *pictures]
        )
        self.files, self.pictures = [], []
        self._answer(self.messages, message)

    def ask_again(self, message: Message) -> None:
        """Have the last message answered anew."""
        before, _ = self.last() or ((), None)
        self._answer(before, message)

    def ask_instead(self, text: str, message: Message) -> None:
        """Say something in the place of the last `message`, whose pictures stay; its answer is forgotten."""
        kept = pictures_of(message)
        text, pictures = self._taken(text, len(kept))
        self.ask_again(with_pictures(text, [*kept, *pictures]))

    def attach(self, pictures: Sequence[SentImage]) -> None:
        """Have pictures go along with the next message. Raises Unsupported for a model without eyes."""
        check_sees(self.service.show(self.model), pictures)
        self.pictures += pictures
        self.announce(pictures)

    def announce(self, pictures: Sequence[SentImage]) -> None:
        """Tell that these pictures go along with the next message."""
        self._show(pictures)
        for picture in pictures:
            size = human_size(len(picture.data) * 3 // 4)
            sys.stderr.write(f"{picture.where} ({size}) goes along with your next message.\n")

    def _taken(self, text: str, before: int) -> tuple[str, list[SentImage]]:
        """Return a text without the pictures that it names, and those; `before` others come before them."""
        text, pictures = take_pictures(text, before)
        if pictures:
            check_sees(self.service.show(self.model), pictures)
            self._show(pictures)
        return text, pictures

    def _show(self, pictures: Sequence[SentImage]) -> None:
        """Draw pictures, if that is wanted."""
        if wanted := self.options.show_images:
            from ..console.pictures.graphics import show_pictures

            show_pictures(pictures, None if wanted is True else wanted)

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
        self.files, self.pictures, self.name, self._unanswered = [], [], None, None

    def switch(self, model: str, options: ChatOptions | None = None) -> None:
        """Go on with another model, and forget what was said. Nothing is changed by one that fails."""
        before = self.options, self.pictures
        self.options, self.pictures = options or self.options, []  # they go with what was said
        try:
            details = self.service.show(model)
            self.preload(details)
        except BaseException:
            self.options, self.pictures = before
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
            show_typed(shown_names(pictures_of(message)) + message.text, stream)
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
