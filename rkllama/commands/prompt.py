"""What `rkllama run` is asked: the words of its arguments, stdin, and pictures."""

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..types import SentImage


def picture_paths(incomplete: str) -> list[str]:
    """Return the paths of pictures, and of folders, that the shell completes a word to."""
    from ..console.inputs import completed_picture

    return completed_picture(incomplete)


def prompt_paths(incomplete: str) -> list[str]:
    """Return those of a word of the prompt, once it looks like a path."""
    return picture_paths(incomplete) if "/" in incomplete else []


def read_prompt(
    words: list[str] | None, images: list[str] | None, *, no_stdin: bool
) -> "tuple[str | None, list[SentImage]]":
    """Return the prompt, None for a chat, and the pictures that go along with it.

    `words` are the arguments, of which those that are pictures are seen, and `images` those of --image.
    Raises BadParameter, RKLLamaError.
    """
    if words is None and images is None:
        return _prompt([], no_stdin=no_stdin), []
    from ..console.pictures.files import STDIN, argument_picture, read_picture, take_pictures

    paths, rest = [*(images or ())], []
    for word in words or ():
        path = argument_picture(word)
        if path is None:
            rest.append(word)
        else:
            paths.append(path)
    _check_stdin_image(paths.count(STDIN), rest, no_stdin=no_stdin)
    pictures = [read_picture(path) for path in paths]
    alone = bool(words) and len(paths) > len(images or ())
    text = _prompt(rest, no_stdin=no_stdin, piped_image=STDIN in paths, alone=alone)
    if text is None:
        return None, pictures
    text, named = take_pictures(text, len(pictures)) if rest else (text, [])
    return text, [*pictures, *named]


def _check_stdin_image(count: int, words: list[str], *, no_stdin: bool) -> None:
    """Raise BadParameter for an `--image -` that cannot be had."""
    reason = None
    if count and (no_stdin or sys.stdin.isatty()):
        reason = "- asks for a picture on stdin, where none comes"
    elif count > 1 or (count and "-" in words):
        reason = "- takes all of stdin, which can be asked for once"
    if reason:
        raise typer.BadParameter(reason, param_hint="--image")


def _prompt(
    words: list[str], *, no_stdin: bool, piped_image: bool = False, alone: bool = False
) -> str | None:
    """Return the prompt: stdin's text, then the arguments; None on a terminal without arguments.

    An argument `-` asks for stdin, also for what is typed on a terminal. stdin has no text where it is a
    `piped_image`; `alone`: a picture is a prompt without words.
    """
    from ..console.inputs import read_stdin

    # Bytes of a command line that are not UTF-8 arrive as lone surrogates, which nothing can encode.
    asked = "-" in words
    if asked and no_stdin:
        raise typer.BadParameter("- asks for stdin, which it refuses", param_hint="--no-stdin")
    typed = (
        " ".join(word for word in words if word != "-")
        .encode(errors="surrogateescape")
        .decode(errors="replace")
    )
    unread = no_stdin or piped_image or (sys.stdin.isatty() and not asked)
    piped = "" if unread else read_stdin().strip()
    parts = [part for part in (piped, typed) if part.strip()]
    if not parts and alone:
        return ""
    if not parts and (words or not sys.stdin.isatty()):
        raise typer.BadParameter("it is empty, and so is stdin", param_hint="PROMPT")
    return "\n\n".join(parts) if parts else None
