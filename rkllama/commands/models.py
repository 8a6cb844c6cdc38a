"""`rkllama pull`, `list`, `show`, `rm`, `cp` and `create`: the models on disk."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..console.output import write_styled
from ..errors import ModelIncomplete
from .common import JSONFlag, Model, model_names, models_option, service_of, settings_of, try_each

if TYPE_CHECKING:
    from ..types import ModelDetails


def pull(
    context: typer.Context,
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A name such as qwen3:4b, or USER/REPO[/FILE[/NAME]][@REVISION] on Hugging Face.",
        ),
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Take the file even if the Hub tells no hash of it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what a name may mean, with scores.")
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Fetch newer files of the pulled models, or of MODEL alone."),
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="With --dry-run: do not use answers of the last hour.")
    ] = False,
) -> None:
    """Download a model, or resume an interrupted download."""
    from .hub.fetch import pull_model, show_candidates

    if update:
        from .hub.outdated import update_models

        update_models(service_of(context, "pull"), settings_of(context), reference)
        return
    if reference is None:
        raise typer.BadParameter("it is missing", param_hint="MODEL")
    if dry_run:
        show_candidates(settings_of(context), reference, refresh=refresh)
        return
    name = pull_model(service_of(context, "pull"), reference, unverified=unverified)
    sys.stderr.write(f"Done. Try it: rkllama run {name}\n")


def list_models(context: typer.Context, as_json: JSONFlag = False) -> None:
    """List the models on disk."""
    from ..console.list import run

    raise typer.Exit(run(models_option(context), as_json=as_json))


def show(
    context: typer.Context,
    model: Model,
    as_json: JSONFlag = False,
    modelfile: Annotated[
        bool, typer.Option("--modelfile", help="Print only the model's Modelfile.")
    ] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print only its chat template.")
    ] = False,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Print only its parameters.")
    ] = False,
    system: Annotated[
        bool, typer.Option("--system", help="Print only its system message.")
    ] = False,
    license: Annotated[bool, typer.Option("--license", help="Print only its license.")] = False,
) -> None:
    """Show the details of a model."""
    from ..console.show import details_json, details_text, part_text

    given = {
        "modelfile": modelfile,
        "template": template,
        "parameters": parameters,
        "system": system,
        "license": license,
    }
    parts = [name for name, wanted in given.items() if wanted]
    if len(parts) + as_json > 1:
        raise typer.BadParameter("choose one of them", param_hint=f"--{parts[-1]}")
    details = service_of(context, "show").show(model)
    if parts:
        text = part_text(details, parts[0])
        sys.stdout.write(text + "\n" * (bool(text) and not text.endswith("\n")))
    elif as_json:
        sys.stdout.write(f"{details_json(details)}\n")
    else:
        write_styled(f"{details_text(details)}\n")


def remove(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="The full names of the models.", autocompletion=model_names
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")
    ] = False,
) -> None:
    """Delete models from disk; loaded ones are unloaded first."""
    service = service_of(context, "rm")
    ask = sys.stdin.isatty() and not yes
    wanted: list[ModelDetails | ModelIncomplete | str] = []

    def look(name: str) -> None:
        try:
            wanted.append(service.show(name) if ask else name)
        except ModelIncomplete as incomplete:
            wanted.append(incomplete)

    def delete(model: "ModelDetails | ModelIncomplete | str") -> None:
        sure = model if isinstance(model, str) else _confirmed(model)
        if sure is not None:
            sys.stderr.write(f"Deleted {service.remove(sure).name}\n")

    found = try_each(models, look)  # before anything is asked: a typo may change the answers
    done = try_each(wanted, delete)
    raise typer.Exit(0 if found and done else 1)


def _confirmed(details: "ModelDetails | ModelIncomplete") -> str | None:
    """Return the full name of the model, if the user wants it deleted."""
    from ..console.output import human_size
    from ..console.terminal import agreed
    from ..files import link_target

    if isinstance(details, ModelIncomplete):
        what = f"incomplete, {human_size(details.completed)}"
        return details.name if agreed(f"Delete {details.name} ({what})?") else None
    info = details.info
    what = f"{info.file}, {human_size(info.size)}"
    if details.parent is not None:
        what = f"made from {details.parent}, which stays"
    elif (target := link_target(info.path)) is not None:
        what = f"a link; {target} stays"
    return info.name if agreed(f"Delete {info.name} ({what})?") else None


def copy(
    context: typer.Context,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The additional name.")],
) -> None:
    """Give a model another name, without using more disk space."""
    service_of(context, "cp").copy(model, name)
    sys.stderr.write(f"{name} is now another name for {model}\n")


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the new model.")],
    file: Annotated[
        str,
        typer.Option("--file", "-f", metavar="FILE", help="Read this Modelfile; - is stdin."),
    ] = "Modelfile",
) -> None:
    """Create a model from a Modelfile, based on a model or a file."""
    from ..console.inputs import read_modelfile
    from ..console.progress import show_upload
    from ..models.uploads import adapter_of, source_of

    text, models = read_modelfile(file), settings_of(context).models
    service = service_of(context, "create")
    files, adapters = (
        [show_upload(service, path) for path in [find(text, file, models)] if path is not None]
        for find in (source_of, adapter_of)
    )
    info = service.create(name, text, files, adapters)
    sys.stderr.write(f"Created {info.name}. Try it: rkllama run {info.name}\n")
