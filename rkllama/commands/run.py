"""`rkllama run`: what is asked for, and with which options."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS
from ..errors import InvalidRequest, RKLLamaError
from .common import model_names, service_of, settings_of

if TYPE_CHECKING:
    from ..console.options import ChatOptions
    from ..repl.saved import SavedChat, SavedChats
    from ..service import Service
    from ..types import Message, SentImage


def _range(name: str) -> dict[str, Any]:
    """The bounds of an option, for Typer to show and to check."""
    low, high = NUMBER_BOUNDS[name]
    return {"min": low, "max": high}


def _least(name: str) -> int:
    """The smallest value of a whole number without a limit that is worth showing."""
    return INTEGER_BOUNDS[name][0]


def chat_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names that the shell completes a saved chat's name to."""
    try:
        names = saved_chats(context).names()
    except RKLLamaError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The model's name as shown by `rkllama list`, or a unique prefix; needed without --resume.",
            autocompletion=model_names,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="The prompt; text on stdin (or - on a terminal) precedes it. Without either, a chat starts.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Show the model a picture; - is stdin. It can be given several times.",
        ),
    ] = None,
    no_stdin: Annotated[
        bool, typer.Option("--no-stdin", help="Do not read stdin, as in a loop that reads it.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Set the system message.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="X", **_range("temperature"), help="Set the randomness; 0 is deterministic."
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=_least("top_k"), help="Sample only from the N most likely tokens."
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("top_p"),
            help="Sample from the top tokens whose probabilities add up to X.",
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("min_p"),
            help="Drop tokens less likely than X times the top one (CPU only).",
        ),
    ] = None,
    repeat_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X", **_range("repeat_penalty"), help="Discourage repetition if X is above 1."
        ),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("frequency_penalty"),
            help="Discourage tokens by how often they occur.",
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("presence_penalty"),
            help="Discourage tokens that already occurred.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use this seed, to get the same answer again (CPU only)."),
    ] = None,
    num_predict: Annotated[
        int | None,
        typer.Option(
            "--num-predict",
            "-n",
            metavar="N",
            min=_least("num_predict"),
            help="Generate at most N tokens; -1 fills the context.",
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=_least("num_ctx"),
            help="Set the context length (prompt and answer).",
        ),
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Let the model think before it answers, or not."),
    ] = None,
    hide_thinking: Annotated[
        bool, typer.Option("--hide-thinking", help="Do not show the model's thinking.")
    ] = False,
    nowordwrap: Annotated[
        bool, typer.Option("--nowordwrap", help="Do not wrap lines at word boundaries.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Draw the answers as Markdown on a terminal.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="CHAT",
            help="Go on with a saved chat, with its model if no MODEL is named.",
            autocompletion=chat_names,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="json|FILE",
            help="Have the answer be JSON, of the JSON schema in FILE if one is named.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the answer and its figures as one JSON object."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show token counts and timings on stderr.")
    ] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Set how long the idle model stays loaded, e.g. 5m; -1: forever.",
        ),
    ] = None,
    pull: Annotated[
        bool | None,
        typer.Option(
            "--pull/--no-pull",
            help="Fetch a model that is not here, or do not; by default a terminal asks.",
        ),
    ] = None,
) -> None:
    """Answer a prompt, or start a chat.

    MODEL may be the path of a .rkllm or .gguf file, such as ./model.gguf, which runs without a server.
    """
    if model is None and resume is None:
        raise typer.BadParameter("it is missing", param_hint="MODEL")
    wanted = _format(format)
    text, images = _prompt(prompt, image or [], no_stdin=no_stdin)
    if as_json and text is None:
        raise typer.BadParameter("it needs a prompt", param_hint="--json")
    if image and text is None:
        raise typer.BadParameter("it needs a prompt", param_hint="--image")
    from ..console.options import ChatOptions

    options = _with_numbers(
        ChatOptions(
            system=system,
            think=think,
            hide_thinking=hide_thinking,
            keep_alive=_duration(keep_alive),
            verbose=verbose,
            wordwrap=not nowordwrap,
            markdown=markdown,
            format=wanted,
        ),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        num_predict=num_predict,
        num_ctx=ctx,
    )
    saved = None if resume is None else saved_chats(context).get(resume)
    converse(
        context,
        model,
        text,
        options,
        images=images,
        saved=saved,
        as_json=as_json,
        decision=pull,
    )


def converse(
    context: typer.Context,
    model: str | None,
    text: str | None,
    options: "ChatOptions",
    *,
    images: "tuple[SentImage, ...]" = (),
    saved: "SavedChat | None" = None,
    as_json: bool = False,
    decision: bool | None = None,
) -> None:
    """Answer a text, or start a chat without one; go on with a saved chat, and its model if none is named.

    `decision` is whether a model or runtime that is not here is fetched; None asks on a terminal.
    """
    from functools import partial

    from ..console.one_file import service_for
    from .hub.fetch import ensure_model
    from .hub.runtime import with_runtime

    settings = settings_of(context)
    if saved is not None:
        model, options = model or saved.model, options.over(saved.options)
    assert model is not None, "without a saved chat one is named"
    service, name = service_for(model, settings.models, lambda: service_of(context, "run"))
    try:
        name = ensure_model(service, name, settings, decision=decision)
        if text is None:
            action = partial(_chat, service, name, options, settings.home, saved)
        else:
            from ..types import Message, TextPart

            asked = Message.of("user", (*images, TextPart(text)))
            action = partial(_answer, service, name, asked, options, saved, as_json)
        with_runtime(action, service, settings, decision=decision)
        sys.stdout.flush()
    except BrokenPipeError:
        from ..console.output import forget_stdout

        forget_stdout()
    finally:
        service.close()


def _chat(
    service: "Service", model: str, options: "ChatOptions", home: str, saved: "SavedChat | None"
) -> None:
    from ..repl.chat import Chat

    Chat(service, model, options, home, saved).loop()


def _answer(
    service: "Service",
    model: str,
    asked: "Message",
    options: "ChatOptions",
    saved: "SavedChat | None",
    as_json: bool,
) -> None:
    from ..console.answer import answer_once

    messages = (*(saved.messages if saved else ()), asked)
    answer_once(service, model, messages, options, as_json=as_json)


def saved_chats(context: typer.Context) -> "SavedChats":
    """Return the saved chats of the user."""
    import os

    from ..repl.saved import SavedChats

    return SavedChats(os.path.join(settings_of(context).home, "chats"))


def _with_numbers(options: "ChatOptions", **numbers: float | None) -> "ChatOptions":
    for name, number in numbers.items():
        try:
            options = options.with_number(name, number)
        except InvalidRequest as error:
            # What Typer lets pass: NaN, and what is larger than it asks.
            raise typer.BadParameter(error.message) from None
    return options


def _format(text: str | None) -> Literal["json"] | dict[str, Any] | None:
    if text is None or text == "json":
        return "json" if text else None
    import json

    try:
        with open(text, encoding="utf-8") as stream:
            schema = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise typer.BadParameter(
            f"{text!r} is neither json nor a file with a JSON schema: {reason}",
            param_hint="--format",
        ) from None
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{text} holds no JSON schema", param_hint="--format")
    return schema


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    from ..config import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a duration such as 30s, 5m or -1", param_hint="--keep-alive"
        ) from None


def _prompt(
    words: list[str] | None, images: list[str], *, no_stdin: bool
) -> "tuple[str | None, tuple[SentImage, ...]]":
    """Return the prompt: stdin's text, then the arguments; None on a terminal without arguments. And the
    pictures: those of the files `images`, then those that the arguments name.

    An argument `-` asks for stdin, also for what is typed on a terminal.
    """
    from ..console.inputs import read_stdin
    from ..console.pictures import read_picture, take_pictures

    # Bytes of a command line that are not UTF-8 arrive as lone surrogates, which nothing can encode.
    asked = "-" in (words or ())
    if asked and no_stdin:
        raise typer.BadParameter("- asks for stdin, which it refuses", param_hint="--no-stdin")
    typed = (
        " ".join(word for word in words or () if word != "-")
        .encode(errors="surrogateescape")
        .decode(errors="replace")
    )
    unread = no_stdin or "-" in images or (sys.stdin.isatty() and not asked)
    shown = tuple(map(read_picture, images))
    typed, named = take_pictures(typed)
    piped = "" if unread else read_stdin().strip()
    parts = [part for part in (piped, typed) if part.strip()]
    if not (parts or named) and (words or not (images or sys.stdin.isatty())):
        raise typer.BadParameter("it is empty, and so is stdin", param_hint="PROMPT")
    text = "\n\n".join(parts) if parts or named else None
    return text, (*shown, *named)
