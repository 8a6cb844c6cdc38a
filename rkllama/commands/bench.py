"""`rkllama bench`: how fast a model is here, in figures that can be compared with another board's."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import InvalidRequest, RKLLamaError
from .common import model_names, models_option, print_json, service_of, settings_of

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..bench.cache.results import CacheReport
    from ..bench.cache.session import Outcome as CacheOutcome
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
            metavar="N",
            min=1,
            max=100,
            help="Measure N rounds. [default: 5, with --quick or --cache 3]",
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
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Measure what conversations saved on the disk are worth."),
    ] = False,
) -> None:
    """Measure how fast a model reads prompts and writes answers.

    Each round loads the model and has it answer prompts of 128, 512 and 2048 tokens, with nothing of them in
    memory (cold) and once more (warm). With --cache, each has conversations of 512 and 2048 tokens saved by
    one process and continued by the next. Ctrl-C prints what has been measured so far.
    """
    _check_usage(as_json, markdown, compare, power, cache)
    if model.endswith(_RESULTS):
        _show(model, compare, as_json, markdown)
    elif cache:
        outcome = _cache_measured(context, model, quick, rounds, ctx)
        _print_cache(outcome.report, as_json)
        _end(outcome.problem)
    else:
        from ..bench.results import read_report

        before = None if compare is None else read_report(compare)
        done = _measured(context, model, _plan(quick, rounds, ctx), power)
        _print(done.report, before, as_json, markdown)
        _end(done.problem)


def _check_usage(
    as_json: bool, markdown: bool, compare: str | None, power: str | None, cache: bool
) -> None:
    if as_json and markdown:
        raise typer.BadParameter("choose one of --json and --markdown", param_hint="--markdown")
    if compare is not None and (as_json or markdown):
        raise typer.BadParameter("it prints tables, and nothing else", param_hint="--compare")
    others = {"--compare": compare, "--power": power, "--markdown": markdown}
    for name in (name for name, value in others.items() if cache and value):
        raise typer.BadParameter("it does not go with --cache", param_hint=name)


def _show(path: str, compare: str | None, as_json: bool, markdown: bool) -> None:
    """Print results that were kept."""
    from ..bench.cache.results import CacheReport, read_any
    from ..bench.results import read_report

    before = None if compare is None else read_report(compare)
    report = read_any(path)
    if not isinstance(report, CacheReport):
        _print(report, before, as_json, markdown)
    elif before is not None or markdown:
        raise InvalidRequest(f"{path} holds results of --cache, which are only shown")
    else:
        _print_cache(report, as_json)


def _end(problem: "RKLLamaError | KeyboardInterrupt | None") -> None:
    """Tell what broke a measurement off, if anything, after its results."""
    sys.stdout.flush()
    if isinstance(problem, RKLLamaError):
        raise problem
    if problem is not None:
        raise typer.Exit(130)


def _plan(quick: bool, rounds: int | None, ctx: int | None) -> "Plan":
    from ..bench.plan import make_plan

    return make_plan(quick=quick, rounds=rounds, context_length=ctx)


# --- Measuring ---------------------------------------------------------------------------------


def _measured(context: typer.Context, model: str, plan: "Plan", power: str | None) -> "Outcome":
    """Measure how fast a model is."""
    from ..bench.power import open_meter

    settings = settings_of(context)
    try:
        meter = open_meter(power)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--power") from None
    return _with_model(
        model,
        settings,
        lambda: service_of(context, "bench"),
        lambda service, info: _measure(service, info, plan, meter, settings),
    )


def _with_model(
    model: str,
    settings: "Settings",
    usual: "Callable[[], Service]",
    measure: "Callable[[Service, ModelInfo], T]",
) -> T:
    """Return what `measure` does; a model that is not here is offered to be fetched, as `run` does."""
    from ..console.one_file import service_for
    from .hub.fetch import ensure_model
    from .hub.runtime import with_runtime

    service, model = service_for(model, settings.models, usual)
    outcomes: list[T] = []
    try:
        model = ensure_model(service, model, settings, decision=None)
        info = service.show(model).info
        with_runtime(
            lambda: outcomes.append(measure(service, info)), service, settings, decision=None
        )
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


def _cache_measured(
    context: typer.Context, model: str, quick: bool, rounds: int | None, ctx: int | None
) -> "CacheOutcome":
    """Measure what saved conversations are worth, without a server: the model's process is driven itself."""
    from ..bench.cache.measure import make_plan
    from ..bench.cache.session import measure_cache, require_states
    from ..config import load_settings
    from ..console.progress import counted_progress, print_note_above
    from ..console.terminal import show_warnings
    from ..engine.service import LocalService

    settings = settings_of(context)
    require_states(settings)
    _refuse_beside_a_server(context, settings)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: no file is to stay
        signal.signal(number, signal.default_int_handler)

    def service() -> LocalService:
        show_warnings()
        # Saved conversations have no part in it.
        own = load_settings({"models": models_option(context), "state_budget": "0"})
        return LocalService(own, "rkllama bench", exact_sampling=True)

    def measure(service: "Service", info: "ModelInfo") -> "CacheOutcome":
        assert isinstance(service, LocalService)
        plan = make_plan(quick=quick, rounds=rounds, context_length=ctx)
        with counted_progress() as report:
            return measure_cache(
                service,
                info.name,
                plan,
                settings=settings,
                report=lambda step: report(step.done, step.total, step.doing),
                warn=print_note_above,
            )

    return _with_model(model, settings, service, measure)


def _refuse_beside_a_server(context: typer.Context, settings: "Settings") -> None:
    if models_option(context) is not None:
        return  # the NPU's lock tells where it is another's
    from ..client.discover import find_server

    server = find_server(settings)
    if server is not None:
        raise RKLLamaError(
            f"--cache has to have the NPU to itself, and a server is running at {server.url}",
            hint="Stop it meanwhile: with Ctrl-C where it runs, or with `systemctl stop rkllama.socket "
            "rkllama.service` (with sudo, or with --user for your own).",
        )


# --- Printing ----------------------------------------------------------------------------------


def _print(
    report: "Report", before: "Report | None", as_json: bool = False, markdown: bool = False
) -> None:
    if as_json:
        from ..bench.schema import to_json

        print_json(to_json(report))
    elif markdown:
        _print_markdown(report)
    else:
        _print_report(report)
        if before is not None:
            _print_comparison(before, report)


def _print_cache(report: "CacheReport", as_json: bool) -> None:
    if as_json:
        from ..bench.schema import to_json

        print_json(to_json(report))
        return
    from ..bench.cache.report import below, heading, rows, verdict
    from ..console.output import table, write_styled

    sys.stdout.write(f"{heading(report)}\n")
    head, *lines = rows(report)
    if lines:
        write_styled(table(head, lines))
        sys.stdout.write("\n")
    _write_filled(below(report))
    sys.stdout.write("\n")
    _write_filled(verdict(report))


def _write_filled(sentences: "Iterable[str]") -> None:
    import textwrap

    for sentence in sentences:
        sys.stdout.write(f"{textwrap.fill(sentence, _COLUMNS)}\n")


def _print_report(report: "Report") -> None:
    from ..bench.report import below, heading, rows
    from ..console.output import table, write_styled

    sys.stdout.write(f"{heading(report)}\n")
    head, *lines = rows(report)
    write_styled(table(head, lines))
    sys.stdout.write("\n")
    _write_filled(below(report))


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
