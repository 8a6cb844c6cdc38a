"""`rkllama bench`: how fast a model is here, in figures that can be compared with another board's."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidRequest, RKLLamaError
from .common import model_names, print_json, service_of, settings_of

if TYPE_CHECKING:
    from ..bench.plan import Plan
    from ..bench.power import Meter
    from ..bench.results import Report
    from ..bench.session import Outcome
    from ..config import Settings
    from ..service import Service
    from ..types import ModelInfo

_RESULTS = ".json"
_COLUMNS = 80


def bench(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The model to measure; or a .json file with results, to show them.",
            autocompletion=model_names,
        ),
    ],
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=100, help="Measure N rounds. [default: 5, with --quick 3]"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the longest prompt, and measure 3 rounds.")
    ] = False,
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=256, max=1 << 24, help="Set the context length to measure with."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Compare with the results in FILE, written by --json."),
    ] = None,
    power: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Measure energy, too: hwmon, a sensor's file, or http://PLUG/PATH#KEY of a plug.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a row for docs/results.md.")
    ] = False,
) -> None:
    """Measure how fast a model reads prompts and writes answers.

    Each round loads the model and has it answer prompts of 128, 512 and 2048 tokens, with nothing of them in
    memory (cold) and once more (warm). Ctrl-C prints what has been measured so far.
    """
    if as_json and markdown:
        raise typer.BadParameter("choose one of --json and --markdown", param_hint="--markdown")
    if compare is not None and (as_json or markdown):
        raise typer.BadParameter("it prints tables, and nothing else", param_hint="--compare")
    from ..bench.results import read_report
    from ..bench.session import Outcome

    before = None if compare is None else read_report(compare)
    if model.endswith(_RESULTS):
        outcome = Outcome(read_report(model), None)
    else:
        outcome = _measured(context, model, _plan(quick, rounds, ctx), power)
    report = outcome.report
    if as_json:
        from ..bench.schema import to_json

        print_json(to_json(report))
    elif markdown:
        _print_markdown(report)
    else:
        _print_report(report)
        if before is not None:
            _print_comparison(before, report)
    sys.stdout.flush()
    if isinstance(outcome.problem, RKLLamaError):
        raise outcome.problem
    if outcome.problem is not None:
        raise typer.Exit(130)


def _plan(quick: bool, rounds: int | None, ctx: int | None) -> "Plan":
    from ..bench.plan import make_plan

    return make_plan(quick=quick, rounds=rounds, context_length=ctx)


# --- Measuring ---------------------------------------------------------------------------------


def _measured(context: typer.Context, model: str, plan: "Plan", power: str | None) -> "Outcome":
    """Measure a model; one that is not here is offered to be fetched, as `run` does."""
    from ..bench.power import open_meter
    from ..console.one_file import service_for
    from .hub.fetch import ensure_model
    from .hub.runtime import with_runtime

    settings = settings_of(context)
    try:
        meter = open_meter(power)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--power") from None
    service, model = service_for(model, settings.models, lambda: service_of(context, "bench"))
    outcomes: list[Outcome] = []
    try:
        model = ensure_model(service, model, settings, decision=None)
        info = service.show(model).info

        def measure() -> None:
            outcomes.append(_measure(service, info, plan, meter, settings))

        with_runtime(measure, service, settings, decision=None)
    finally:
        service.close()
    return outcomes[0]


def _measure(
    service: "Service", info: "ModelInfo", plan: "Plan", meter: "Meter", settings: "Settings"
) -> "Outcome":
    from ..bench.session import measure_model
    from ..console.progress import counted_progress, print_note_above

    with counted_progress() as report:
        return measure_model(
            service,
            info,
            plan,
            meter,
            settings=settings,
            report=lambda step: report(step.done, step.total, step.doing),
            warn=print_note_above,
        )


# --- Printing ----------------------------------------------------------------------------------


def _print_report(report: "Report") -> None:
    import textwrap

    from ..bench.report import below, heading, rows
    from ..console.output import table, write_styled

    sys.stdout.write(f"{heading(report)}\n")
    head, *lines = rows(report)
    write_styled(table(head, lines))
    sys.stdout.write("\n")
    for sentence in below(report):
        sys.stdout.write(f"{textwrap.fill(sentence, _COLUMNS)}\n")


def _print_comparison(then: "Report", now: "Report") -> None:
    from ..bench.compare import differences, ratios
    from ..bench.report import difference_rows, ratio_rows
    from ..console.output import table, write_styled

    head, *lines = ratio_rows(list(ratios(then, now)))
    write_styled(f"\n{table(head, lines)}")
    head, *lines = difference_rows(list(differences(then, now)))
    if lines:
        write_styled(f"\n{table(head, lines)}")


def _print_markdown(report: "Report") -> None:
    from ..bench.report import markdown_head, markdown_row

    sys.stdout.write(markdown_head() + markdown_row(report))
