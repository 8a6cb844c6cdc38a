"""`rkllama run`: what is asked for, and with which options."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..config import INTEGER_BOUNDS, NUMBER_BOUNDS
from ..errors import InvalidRequest, RKLLamaError
from .common import model_names, service_of, settings_of
from .prompt import picture_paths, prompt_paths, read_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..console.options import ChatOptions
    from ..repl.saved import SavedChat, SavedChats
    from ..service import Service
    from ..types import SentImage


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
            help="The prompt; text on stdin (or - on a terminal) precedes it. Without either, a chat starts. "
            "The path of a picture shows it to the model.",
            autocompletion=prompt_paths,
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Show a picture to the model, - for the one on stdin; may be repeated.",
            autocompletion=picture_paths,
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
    show_images: Annotated[
        bool,
        typer.Option("--show-images", help="Draw the pictures small, on a terminal that can."),
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
    text, pictures = read_prompt(prompt, image, no_stdin=no_stdin)
    if as_json and text is None:
        raise typer.BadParameter("it needs a prompt", param_hint="--json")
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
            show_images=show_images,
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
        pictures=pictures,
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
    pictures: "Sequence[SentImage]" = (),
    saved: "SavedChat | None" = None,
    as_json: bool = False,
    decision: bool | None = None,
) -> None:
    """Answer a text, or start a chat without one; go on with a saved chat, and its model if none is named.
    The pictures belong to the text, or to the first one in the chat.

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
            action = partial(_chat, service, name, options, settings.home, saved, pictures)
        else:
            action = partial(_answer, service, name, text, pictures, options, saved, as_json)
        with_runtime(action, service, settings, decision=decision)
        sys.stdout.flush()
    except BrokenPipeError:
        from ..console.output import forget_stdout

        forget_stdout()
    finally:
        service.close()


def _chat(
    service: "Service",
    model: str,
    options: "ChatOptions",
    home: str,
    saved: "SavedChat | None",
    pictures: "Sequence[SentImage]",
) -> None:
    from ..repl.chat import Chat

    Chat(service, model, options, home, saved, pictures).loop()


def _answer(
    service: "Service",
    model: str,
    text: str,
    pictures: "Sequence[SentImage]",
    options: "ChatOptions",
    saved: "SavedChat | None",
    as_json: bool,
) -> None:
    from ..console.answer import answer_once
    from ..repl.attachments import with_pictures

    if pictures:
        _look(service, model, pictures, options)
    messages = (*(saved.messages if saved else ()), with_pictures(text, pictures))
    answer_once(service, model, messages, options, as_json=as_json)


def _look(
    service: "Service", model: str, pictures: "Sequence[SentImage]", options: "ChatOptions"
) -> None:
    """Draw pictures if that is wanted. Raises Unsupported for a model without eyes, before it is loaded."""
    from ..console.pictures.files import check_sees

    check_sees(service.show(model), pictures)
    if options.show_images:
        from ..console.pictures.graphics import show_pictures

        show_pictures(pictures)


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
