"""`rkllama embed` and `rkllama rerank`: the vectors of texts, and which of them answer a query."""

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .common import Model, service_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..service import Service
    from ..types import EmbeddingRequest, RerankRequest

_BATCH = 16
"""Texts of stdin that are embedded at once: the first vectors come soon, and few requests are made."""

Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]...", help="The texts; without any, or with -, each line of stdin is one."
    ),
]
Truncate = Annotated[
    bool,
    typer.Option(
        "--truncate/--no-truncate",
        help="Cut texts that are longer than the context, or refuse them.",
    ),
]
Numbered = tuple[int, str]
"""A text, and its number from 0 among the arguments or the lines of stdin."""


def embed(
    context: typer.Context,
    model: Model,
    texts: Texts = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Cut the vectors to their first N dimensions, for models made for that.",
        ),
    ] = None,
    truncate: Truncate = True,
    ctx: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Set the context length.")
    ] = None,
) -> None:
    """Print the embeddings of texts, one JSON object per line.

    Each has the text's index, the text, and its embedding, a vector of length 1.
    """
    from functools import partial

    from ..console.one_file import service_for
    from ..types import EmbeddingRequest
    from .hub.fetch import ensure_model
    from .hub.runtime import with_runtime

    settings = settings_of(context)
    service, name = service_for(model, settings.models, lambda: service_of(context, "embed"))
    try:
        name = ensure_model(service, name, settings, decision=None)
        asked = EmbeddingRequest(
            model=name, inputs=(), truncate=truncate, dimensions=dimensions, context_length=ctx
        )
        arguments = texts or ["-"]
        typed = "-" in arguments and sys.stdin.isatty()
        if typed:
            sys.stderr.write("Each line is a text; Ctrl-D ends them.\n")
        for batch in _batches(_texts(arguments), 1 if typed else _BATCH):
            with_runtime(partial(_print, service, asked, batch), service, settings, decision=None)
    finally:
        service.close()


def rerank(
    context: typer.Context,
    model: Model,
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="What the texts are to answer: a question, or words."),
    ],
    documents: Texts = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Print only the best N.")
    ] = None,
    truncate: Truncate = True,
) -> None:
    """Print texts by how well they answer a query, one JSON object per line.

    Each has the text's index, the text, and its score from 0 to 1; the best one comes first.
    """
    from functools import partial

    from ..console.one_file import service_for
    from ..types import RerankRequest
    from .hub.fetch import ensure_model
    from .hub.runtime import with_runtime

    settings = settings_of(context)
    service, name = service_for(model, settings.models, lambda: service_of(context, "rerank"))
    try:
        name = ensure_model(service, name, settings, decision=None)
        if texts := [*_texts(documents or ["-"])]:
            asked = RerankRequest(model=name, query=query, documents=(), truncate=truncate)
            ranking = partial(_print_ranking, service, asked, texts, top)
            with_runtime(ranking, service, settings, decision=None)
    finally:
        service.close()


def _texts(arguments: "Iterable[str]") -> "Iterator[Numbered]":
    """Yield the texts; `-` stands for the lines of stdin, of which those without text are left out."""
    index = 0
    for argument in arguments:
        for text in _lines() if argument == "-" else [argument]:
            if text.strip():
                # Bytes of a command line that are not UTF-8 arrive as lone surrogates.
                yield index, text.encode(errors="surrogateescape").decode(errors="replace")
            index += 1


def _lines() -> "Iterator[str]":
    try:
        for line in sys.stdin.buffer:
            yield line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError("the text on stdin is not UTF-8") from None


def _batches(texts: "Iterator[Numbered]", size: int) -> "Iterator[list[Numbered]]":
    while batch := list(islice(texts, size)):
        yield batch


def _print_ranking(
    service: "Service", asked: "RerankRequest", texts: list[Numbered], top: int | None
) -> None:
    import json
    from dataclasses import replace

    from ..console.terminal import Spinner

    documents = tuple(text for _, text in texts)
    with Spinner("Ranking…"):
        scores = service.rerank(replace(asked, documents=documents)).scores
    rows = sorted(zip(scores, texts, strict=True), key=lambda row: -row[0])
    for score, (index, text) in rows[:top]:
        values = {"index": index, "text": text, "score": float(f"{score:.9g}")}
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")


def _print(service: "Service", asked: "EmbeddingRequest", batch: list[Numbered]) -> None:
    import json
    from dataclasses import replace

    from ..console.terminal import Spinner

    texts = tuple(text for _, text in batch)
    with Spinner("Embedding…"):  # the first time it is loaded, too
        vectors = service.embed(replace(asked, inputs=texts)).vectors
    for (index, text), vector in zip(batch, vectors, strict=True):
        # As many digits as a float of 32 bits has.
        numbers = [float(f"{number:.9g}") for number in vector]
        values = {"index": index, "text": text, "embedding": numbers}
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    sys.stdout.flush()
