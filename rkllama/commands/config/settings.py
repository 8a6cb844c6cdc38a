"""`rkllama config`: the settings, where each was set, and changing those in the file."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ...config import (
    CONFIG_FILE,
    SETTINGS,
    Setting,
    find_value,
    home_directory,
    host_name,
    load_settings,
    near_names,
    read_config,
)
from ...errors import ConfigError, RKLLamaError
from ..common import JSONFlag, command_group, models_option, print_json
from .values import RULES, SECRET, json_value, shown_text, toml_value, value_text

if TYPE_CHECKING:
    from collections.abc import Iterator

app = command_group("config")


def _setting_names(incomplete: str) -> list[str]:
    return [setting.name for setting in SETTINGS if setting.name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The setting's name, such as keep_alive.",
        autocompletion=_setting_names,
    ),
]


class Row(NamedTuple):
    """A setting as it is in force. `source` is default, file, environment or option."""

    setting: Setting
    value: Any
    source: str
    where: str | None
    """The option, the variable or the file; None for a default."""
    error: str | None = None
    """Why the value, which is then as it was written, cannot be used."""


@app.callback()
def config(context: typer.Context, as_json: JSONFlag = False) -> None:
    """Show the settings and where each was set; change them in config.toml.

    Of API keys only the number is shown.
    """
    if context.invoked_subcommand is None:
        _show(context, as_json=as_json)


def _show(context: typer.Context, *, as_json: bool) -> None:
    path = _config_file()
    table = read_config(path)
    rows = list(_rows(table, path, models_option(context)))
    if as_json:
        print_json([_as_json(row) for row in rows])
    else:
        _print(rows)
    _check_known(table, path)
    bad = [row for row in rows if row.error is not None]
    if bad:
        raise ConfigError(
            f"{', '.join(row.setting.name for row in bad)} cannot be used as set",
            hint="Correct it with `rkllama config set`, or remove it with `rkllama config unset`.",
        )


@app.command()
def get(context: typer.Context, name: Name) -> None:
    """Print the value of one setting."""
    setting = _known(name)
    if name == SECRET:
        raise ConfigError("API keys are not shown", hint=f"They are set in {_config_file()}.")
    path = _config_file()
    rows = _rows(read_config(path), path, models_option(context))
    row = next(row for row in rows if row.setting is setting)
    if row.error is not None:
        raise ConfigError(f"{name} {setting.refused(row.value)}: {row.error}")
    if row.value is not None:
        sys.stdout.write(f"{value_text(row.value, setting)}\n")


@app.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a value
def set_value(
    name: Name,
    value: Annotated[
        str,
        typer.Argument(metavar="VALUE", help="Its value, as its variable takes it."),
    ],
) -> None:
    """Set a setting in config.toml; comments and other lines stay as they are."""
    from .file import change_file

    setting = _known(name)
    _check_in_file(setting)
    try:
        written = toml_value(setting, value)
    except (ValueError, TypeError) as error:
        shown = "used" if name == SECRET else repr(value)
        raise ConfigError(f"{name} cannot be {shown}: {error}") from None
    path = _config_file()
    before = _loaded()
    changed = change_file(path, name, written)
    text = shown_text(setting, setting.parse(value))
    sys.stderr.write(f"{'Set' if changed else 'Already set:'} {name} = {text} in {path}\n")
    _say_what_else(setting, before, changed=changed)


@app.command()
def unset(name: Name) -> None:
    """Remove a setting from config.toml, so that its default counts."""
    from .file import change_file

    path = _config_file()
    if name not in read_config(path):  # what no release knows can be removed, too
        setting = _known(name)
        sys.stderr.write(f"{name} is not set in {path}\n")
        _say_what_else(setting, None, changed=False)
        return
    before = _loaded()
    change_file(path, name, None)
    sys.stderr.write(f"Removed {name} from {path}\n")
    for setting in SETTINGS:
        if setting.name == name:
            _say_what_else(setting, before, changed=True)


# --- What counts -------------------------------------------------------------------------------


def _config_file() -> str:
    return os.path.join(home_directory(), CONFIG_FILE)


def _rows(table: dict[str, Any], path: str, models: str | None) -> "Iterator[Row]":
    flags = {} if models is None else {"models": models}
    for setting in SETTINGS:
        place = find_value(setting, flags, os.environ, {} if setting.name == "home" else table)
        if place is None:
            yield Row(setting, _default(setting), "default", None)
            continue
        raw, where = place
        source = {setting.flag: "option", setting.variable: "environment"}.get(where, "file")
        try:
            value, error = setting.parse(raw), None
        except (ValueError, TypeError) as problem:
            value, error = raw, str(problem)
        yield Row(setting, value, source, path if source == "file" else where, error)


def _default(setting: Setting) -> Any:
    if setting.name == "home":
        return home_directory()
    if setting.name == "models":
        return os.path.join(home_directory(), "models")
    if setting.name == "board_name":
        return host_name()
    return setting.default


def _known(name: str) -> Setting:
    """Return a setting. Raises ConfigError, with names that are near."""
    names = {setting.name: setting for setting in SETTINGS}
    if name in names:
        return names[name]
    raise ConfigError(f"there is no setting '{name[:100]}'", hint=near_names(name, names))


def _check_known(table: dict[str, Any], path: str) -> None:
    for name in table:
        try:
            _check_in_file(_known(name))
        except ConfigError as error:
            error.message = f"{error.message}, which {path} sets"
            error.hint = f"{error.hint} Remove it with `rkllama config unset {name}`."
            raise


def _check_in_file(setting: Setting) -> None:
    if setting.name == "home":
        raise ConfigError(
            "home cannot be set in the file, which lies there",
            hint=f"Set the variable {setting.variable}.",
        )


def _say_what_else(setting: Setting, before: Any, *, changed: bool) -> None:
    """Say what keeps a change from having an effect: a variable, or a server that has to be restarted."""
    from ...console.output import print_note

    if os.environ.get(setting.variable):
        shown = "" if setting.name == SECRET else f"={os.environ[setting.variable]}"
        print_note(f"{setting.variable}{shown} is set here and overrules the file.")
    if not changed:
        return
    from ...client.discover import find_server

    try:
        server = None if before is None else find_server(before)
    except RKLLamaError:
        return
    if server is not None and os.path.realpath(server.home) == os.path.realpath(home_directory()):
        print_note(f"restart the server at {server.url} for it to count there.")


def _loaded() -> Any:
    """Return the settings in force, None while they cannot be read: a change may be what mends them."""
    try:
        return load_settings()
    except ConfigError:
        return None


# --- What is shown -----------------------------------------------------------------------------

_HEADINGS = {"option": "Command line", "environment": "Environment", "default": "Default"}


def _print(rows: list[Row]) -> None:
    from ...console.output import BOLD, styled, write_styled
    from ...console.show import two_columns
    from ...console.streams import printable

    texts = []
    for source in ("option", "environment", "file", "default"):
        own = [row for row in rows if row.source == source]
        if not own:
            continue
        heading = _HEADINGS.get(source) or own[0].where or ""
        lines = two_columns([(row.setting.name, _line(row)) for row in own])
        lines = printable(lines) if sys.stdout.isatty() else lines
        texts.append(f"{styled(heading, BOLD, sys.stdout)}\n{lines}")
    write_styled("\n".join(texts))
    sys.stdout.flush()


def _line(row: Row) -> str:
    text = shown_text(row.setting, row.value) if row.error is None else f"{row.value}: {row.error}"
    if row.error is not None and row.setting.name in (SECRET, RULES):
        text = row.error
    return f"{text}  ({row.where})" if row.source in ("option", "environment") else text


def _as_json(row: Row) -> dict[str, Any]:
    secret = row.setting.name == SECRET
    value = json_value(row.setting, row.value, valid=row.error is None)
    values = {
        "name": row.setting.name,
        "value": None if secret else value,
        "source": row.source,
        "where": row.where,
        "variable": row.setting.variable,
    }
    if secret:
        values["count"] = len(row.value) if row.error is None else 0
    if row.error is not None:
        values["error"] = row.error
    return values
