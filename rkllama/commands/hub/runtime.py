"""`rkllama runtime`: the releases of librkllmrt on this board, and which model uses which."""

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ...errors import InvalidRequest, LibraryNotFound, RKLLamaError, WrongRuntime
from ..common import JSONFlag, command_group, print_json, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...config import Settings
    from ...rkllm.installed import Runtimes
    from ...rkllm.releases import Published
    from ...service import Service

app = command_group("runtime", "Manage the releases of librkllmrt, the NPU's runtime.")

Release = Annotated[str, typer.Argument(metavar="RELEASE", help="A release, such as 1.2.3.")]


@app.command("list")
def list_runtimes(
    context: typer.Context,
    as_json: JSONFlag = False,
) -> None:
    """List the releases that are installed or can be, and the models that use them."""
    rows = list(_rows(settings_of(context)))
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    from ...console.output import table, write_styled

    cells = [(row.release, row.state, ", ".join(row.models) or "-", row.note) for row in rows]
    write_styled(table(("RELEASE", "STATE", "MODELS", "NOTE"), cells))
    if not any(row.path for row in rows):
        sys.stdout.flush()
        sys.stderr.write(_how_to_get_one(rows))


@app.command()
def install(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="[RELEASE]",
            help="By default the newest that is known to run on this board; rknn is librknnrt, which "
            "models that see need.",
        ),
    ] = None,
) -> None:
    """Fetch a release from the vendor's repository, or resume that."""
    from ...rkllm.releases import ENCODERS

    settings = settings_of(context)
    if release == ENCODERS:
        _install_encoder_library(settings)
        sys.stderr.write("Installed librknnrt.\n")
        return
    done = install_release(settings, release)
    sys.stderr.write(f"Installed librkllmrt {done}.\n")


@app.command()
def add(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A librkllmrt.so of this machine.")],
    release: Annotated[
        str | None,
        typer.Option(
            "--release", metavar="RELEASE", help="Its release, if the file does not tell it."
        ),
    ] = None,
) -> None:
    """Add a library that you have; it is used although its origin is not known."""
    from ...console.terminal import Spinner
    from ...files import copy_file, make_directory, not_written
    from ...rkllm.library import FILE
    from ...rkllm.releases import is_release
    from ...runner.probe import probe

    path = os.path.abspath(os.path.expanduser(file))
    path = os.path.join(path, FILE) if os.path.isdir(path) else path
    with Spinner("Looking at the library…"):
        found = probe(path, release)
    name = release or found
    if not is_release(name):
        raise InvalidRequest(f"'{name[:50]}' is not a release", hint="Write it like 1.2.3.")
    folder = _runtimes(settings_of(context)).folder(name)
    try:
        make_directory(folder)
        copy_file(path, os.path.join(folder, FILE))
    except OSError as error:
        raise not_written(error, os.path.join(folder, FILE)) from None
    sys.stderr.write(f"Added librkllmrt {name}.\n")


@app.command("rm")
def remove(context: typer.Context, release: Release) -> None:
    """Remove a release from RKLLama's own directory, or what is there of one."""
    import shutil

    from ...rkllm.releases import is_release

    folder = _runtimes(settings_of(context)).folder(release)
    if not is_release(release) or not os.path.isdir(folder):
        raise InvalidRequest(
            f"librkllmrt {release[:50]} is not installed here",
            hint="`rkllama runtime list` shows the releases.",
        )
    try:
        os.unlink(folder) if os.path.islink(folder) else shutil.rmtree(folder)
    except OSError as error:
        raise RKLLamaError(f"{folder} cannot be removed: {error.strerror}") from None
    sys.stderr.write(f"Removed librkllmrt {release}.\n")


@app.command()
def use(
    context: typer.Context,
    release: Annotated[
        str, typer.Argument(metavar="RELEASE|auto", help="A release; auto leaves the choice to us.")
    ],
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="For this model alone.")
    ] = None,
) -> None:
    """Choose the release for one model, or the one that is tried first for all."""
    settings = settings_of(context)
    runtimes = _runtimes(settings)
    chosen = None if release == "auto" else release
    if chosen is not None and chosen not in [one.release for one in runtimes.installed()]:
        raise InvalidRequest(
            f"librkllmrt {chosen[:50]} is not installed",
            hint=f"Run `rkllama runtime install {chosen[:50]}`, or see `rkllama runtime list`.",
        )
    path = None if model is None else _path_of(settings, model)
    try:
        runtimes.choose(chosen, path)
    except OSError as error:
        raise RKLLamaError(f"the choice cannot be kept: {error}") from None
    what = "All models try" if model is None else f"{model} uses"
    how = "the release that fits" if chosen is None else f"librkllmrt {chosen}"
    first = " first" if model is None and chosen is not None else ""
    sys.stderr.write(f"{what} {how}{first}, from the next load on.\n")


def install_release(settings: "Settings", release: str | None) -> str:
    """Fetch a release with its progress on stderr, and return it. Raises PullError, InvalidRequest, …"""
    from ...board.soc import read_soc
    from ...clib.elf import machine
    from ...console.output import print_note
    from ...rkllm.releases import (
        PUBLISHED,
        SIGILL_RISK,
        default_release,
        is_doubtful,
        published_for,
    )

    soc, here = read_soc(), machine() or "this machine"
    chosen = release or default_release(soc, here)
    known = published_for(here)
    if chosen not in known:
        raise InvalidRequest(
            f"there is no librkllmrt {chosen[:50]} for {here}",
            hint=f"Published for it: {', '.join(known) or 'none; aarch64 and armhf have some'}.",
        )
    if is_doubtful(chosen, soc):
        print_note(SIGILL_RISK)
    _fetch(settings, _runtimes(settings).folder(chosen), chosen, PUBLISHED[chosen], here)
    return chosen


def _install_encoder_library(settings: "Settings") -> None:
    """Fetch librknnrt with its progress on stderr. Raises PullError, InvalidRequest, …"""
    from ...clib.elf import machine
    from ...rkllm.releases import ENCODER_LIBRARY

    here = machine() or "this machine"
    if here not in ENCODER_LIBRARY.blobs:
        raise InvalidRequest(
            f"there is no librknnrt for {here}", hint="It is published for aarch64 and armhf."
        )
    _fetch(settings, os.path.join(settings.home, "lib"), "", ENCODER_LIBRARY, here)


def _fetch(
    settings: "Settings", folder: str, release: str, published: "Published", machine: str
) -> None:
    from ...console.progress import shown_progress
    from ...hub.runtimes import install as fetch
    from ...rkllm.releases import ENCODERS

    steps = fetch(folder, release, published, machine, base=settings.runtime_url)
    try:
        with (
            contextlib.closing(steps),
            shown_progress("Contacting the vendor's repository…") as report,
        ):
            for step in steps:
                report(step)
    except KeyboardInterrupt:
        again = f"rkllama runtime install {release or ENCODERS}"
        sys.stderr.write(f"\nStopped. To resume: {again}\n")
        raise


def with_runtime(
    action: "Callable[[], None]",
    service: "Service",
    settings: "Settings",
    *,
    decision: bool | None,
) -> None:
    """Do something that may need a release that is not here: fetch it where the user wants, and try again.

    `decision` True fetches without asking, False never, None asks on a terminal. Raises what `action` does.
    """
    from ...console.terminal import agreed, can_ask

    offered: set[str] = set()
    while True:
        try:
            return action()
        except (LibraryNotFound, WrongRuntime) as error:
            release = _missing(error, service, settings)
            if release is None or release in offered or decision is False:
                raise
            if not (decision or can_ask()):
                raise
            sys.stderr.write(
                f"{error.message}.\n" * bool(offered or isinstance(error, WrongRuntime))
            )
            question = f"This model needs librkllmrt {release}, the NPU's runtime. Fetch it?"
            if not (decision or agreed(question, default=True)):
                raise
            offered.add(release)
            install_release(settings, release)


def _missing(error: RKLLamaError, service: "Service", settings: "Settings") -> str | None:
    """Return the release whose installation here may mend an error; None if none would."""
    from ...board.soc import read_soc
    from ...clib.elf import machine
    from ...engine.service import LocalService
    from ...rkllm.releases import default_release, published_for

    here = machine() or ""
    if not isinstance(service, LocalService) or settings.rkllm_lib is not None:
        return None
    if not published_for(here):
        return None
    return error.release if isinstance(error, WrongRuntime) else default_release(read_soc(), here)


# --- The rest ----------------------------------------------------------------------------------


def _runtimes(settings: "Settings") -> "Runtimes":
    from ...rkllm.installed import Runtimes

    return Runtimes(settings.home)


def _path_of(settings: "Settings", model: str) -> str:
    from ...models.store import Store

    path = Store(settings.models, settings.aliases).resolve(model).info.path
    if not path.lower().endswith(".rkllm"):
        raise InvalidRequest(f"{model} does not run on the NPU", hint="Only .rkllm models do.")
    return path


def _how_to_get_one(rows: "list[_Row]") -> str:
    if rows:
        return "None is installed. Install one: rkllama runtime install\n"
    return "There is none for this machine's CPU. Models in .gguf format run without it.\n"


class _Row(NamedTuple):
    """A release in `runtime list`; `path` is None where it is not installed."""

    release: str
    state: str
    models: list[str]
    note: str
    path: str | None


def _rows(settings: "Settings") -> "Iterator[_Row]":
    from ...board.soc import read_soc
    from ...clib.elf import machine
    from ...rkllm.releases import age, is_doubtful, published_for

    runtimes, soc, here = _runtimes(settings), read_soc(), machine()
    installed = {one.release: one for one in runtimes.installed()}
    known = {*published_for(here), *installed}
    users, first = _users(settings, runtimes), runtimes.default()
    for release in sorted(known, key=age, reverse=True):
        one = installed.get(release)
        notes = ["the first choice"] if release == first else []
        if one is not None and not one.managed:
            notes.append(one.path)
        if is_doubtful(release, soc):
            notes.append("may die with SIGILL here")
        yield _Row(
            release,
            "installed" if one else "available",
            users.get(release, []),
            "; ".join(notes),
            one.path if one else None,
        )


def _users(settings: "Settings", runtimes: "Runtimes") -> dict[str, list[str]]:
    """Return the models of each release: chosen for it, or the last that loaded it."""
    from ...models.store import Store

    users: dict[str, list[str]] = {}
    try:
        models = Store(settings.models).list()
    except RKLLamaError:
        return users
    models = [info for info in models if info.path.lower().endswith(".rkllm")]
    choices = runtimes.choices(info.path for info in models)
    for info in models:
        release = choices[info.path].release
        if release is not None:
            users.setdefault(release, []).append(info.name)
    return users
