"""`rkllama service`: the server as a service of systemd, for one user or for all, put up and removed."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import InvalidRequest, RKLLamaError
from ..common import command_group
from .models import care_for_models
from .status import ForUser, status

if TYPE_CHECKING:
    from ...systemd.install import Plan
    from ...systemd.manager import Manager
    from ...systemd.steps import Step
    from ...systemd.units import DropIn

app = command_group("service", "Run the server as a service of systemd.")

Root = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Work on the files of another system, whose root is DIR."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would be done, as a shell script.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace or remove edited files, too.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@app.command()
def install(
    user: ForUser = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Listen on this address. [default: 127.0.0.1:8080]"
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Use this models directory. [default: /var/lib/rkllama/models]"
        ),
    ] = None,
    exit_idle: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End the idle server after TIME, until the next connection; -1: never. [default: 10m]",
        ),
    ] = None,
    key: Annotated[
        bool | None,
        typer.Option(
            "--key/--no-key",
            help="Make an API key, which the server then asks for. [default: only if other machines "
            "can reach it]",
        ),
    ] = None,
    move_models: Annotated[
        bool | None,
        typer.Option(
            "--move-models/--no-move-models",
            help="Move your models and runtimes to the service of all users; by default a terminal asks.",
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Have the service run the rkllama FILE. [default: this one]"
        ),
    ] = None,
    root: Root = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Install, change or update the service; what is as it should be stays.

    With neither root nor --system it is for you alone and has your models. The socket belongs to systemd:
    the first connection starts the server, and an idle one ends.
    """
    from ...console.output import print_note
    from ...systemd.install import Plan, can_write, check_program
    from ...systemd.steps import pending

    manager = _manager(user, root, dry_run=dry_run)
    address = None if host is None else _address(host)
    plan = Plan(
        manager,
        _program(program),
        drop_ins=_drop_ins(address, models, exit_idle),
        always_on=None if exit_idle is None else _is_never(exit_idle),
        key=_key_file(manager) if _wants_key(key, address) else None,
        force=force,
    )
    if dry_run:
        _print_script(pending(plan.steps()))
        return
    check_program(manager, plan.program)
    _check_address(manager, address)
    changed = _carry_out(plan.steps())
    _say_what_stayed(
        plan.steps(), "--force takes ours instead; changes are kept in drop-ins (systemctl edit)"
    )
    if models is not None and not root and not can_write(manager, os.path.abspath(models)):
        print_note(f"the service may not write to {models}, so that it cannot fetch models.")
    if not manager.user:
        changed |= care_for_models(manager, move_models)
    _say_installed(plan, changed=changed)


@app.command()
def uninstall(
    user: ForUser = None,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Delete the models, keys and settings of the service of all users, too."
        ),
    ] = False,
    root: Root = None,
    force: Force = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Stop the service and remove it; its models stay."""
    from ...console.terminal import agreed, can_ask
    from ...systemd.install import removal
    from ...systemd.steps import pending
    from ...systemd.units import HOME

    manager = _manager(user, root, dry_run=dry_run)
    if purge and manager.user:
        raise InvalidRequest(
            "--purge is for the service of all users",
            hint="Your own models are removed with `rkllama rm`.",
        )
    steps = removal(manager, purge=purge, force=force)
    if dry_run:
        _print_script(pending(steps))
        return
    if not pending(steps):
        sys.stderr.write("The service is not installed.\n")
        return
    if not yes:
        what = f"Remove the service, and {HOME} with all models" if purge else "Remove the service"
        if not can_ask():
            raise InvalidRequest("nobody can be asked here", hint="Confirm it with --yes.")
        if not agreed(f"{what}?"):
            raise typer.Exit(1)
    _carry_out(steps)
    _say_what_stayed(steps, "--force removes it")
    if not purge and not manager.user and os.path.isdir(manager.root + HOME):
        sys.stderr.write(f"The models and settings are still in {manager.root + HOME}.\n")


app.command()(status)


# --- What is asked for -------------------------------------------------------------------------


def _manager(user: bool | None, root: str | None, *, dry_run: bool) -> "Manager":
    """Return whom to install with. Raises InvalidRequest, RKLLamaError."""
    from ...systemd.manager import Manager

    if root is not None:
        if user:
            raise InvalidRequest(
                "--root is for the service of all users", hint="Leave --user away."
            )
        root = os.path.abspath(root).rstrip("/")
        if root and not os.path.isdir(root):
            raise InvalidRequest(f"there is no directory {root}")
    is_root = os.geteuid() == 0
    manager = Manager(user=not (is_root or root) if user is None else user, root=root or "")
    manager.require()
    if not manager.user and not is_root and not dry_run:
        raise RKLLamaError(
            "a service for all users needs root",
            hint="Run the command with sudo; or leave --system away, and it is for you alone.",
        )
    return manager


def _program(path: str | None) -> tuple[str, ...]:
    """Return the command line of the program that the service runs: by default of this very one."""
    if path is not None:
        return (os.path.abspath(os.path.expanduser(path)),)
    script = os.path.join(os.path.dirname(sys.executable), "rkllama")
    return (script,) if os.path.isfile(script) else (sys.executable, "-m", "rkllama")


def _address(host: str) -> str:
    """Return an address as a socket unit has it. Raises InvalidRequest, ConfigError."""
    import ipaddress
    import re

    from ...config import server_address

    name, port = server_address(host)
    name = "127.0.0.1" if name == "localhost" else name
    try:
        if port == 0:
            raise ValueError
        ip = ipaddress.ip_address(name)
        if not re.fullmatch(r"[\w.:%-]+", str(ip)):  # a scope may have any characters
            raise ValueError
    except ValueError:
        raise InvalidRequest(
            f"a service cannot listen on {host!r}",
            hint="It takes an IP address and a port: 127.0.0.1:8080, or 0.0.0.0:8080 for all networks.",
        ) from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _drop_ins(address: str | None, models: str | None, exit_idle: str | None) -> "list[DropIn]":
    from ...systemd.units import address_drop_ins, exit_idle_drop_in, models_drop_in

    found = [] if address is None else address_drop_ins(address)
    if models is not None:
        found.append(models_drop_in(os.path.abspath(os.path.expanduser(models))))
    if exit_idle is not None:
        _is_never(exit_idle)  # it raises what is wrong with it
        found.append(exit_idle_drop_in(exit_idle))
    return found


def _is_never(exit_idle: str) -> bool:
    """Return whether a time is the one that never comes. Raises ConfigError."""
    from ...config import load_settings

    return load_settings({"exit_idle": exit_idle}).exit_idle is None


def _wants_key(key: bool | None, address: str | None) -> bool:
    from ...config import is_loopback, server_address

    if key is not None or address is None:
        return bool(key)
    return not is_loopback(server_address(address)[0])


def _key_file(manager: "Manager") -> str:
    from ...config import load_settings
    from ...systemd.units import HOME

    return os.path.join(load_settings().home if manager.user else HOME, "keys")


def _check_address(manager: "Manager", address: str | None) -> None:
    """Raise RKLLamaError where another program has the service's address."""
    from ...board.proc import describe_listener, listener_uids
    from ...config import server_address
    from ...systemd.status import address_of
    from ...systemd.units import SOCKET

    if manager.root:
        return
    socket = manager.show(SOCKET)
    wanted = address or address_of(socket)
    port = server_address(wanted)[1]
    own = socket.get("ActiveState") == "active" and address_of(socket) == wanted
    if listener_uids(port) and not own:
        raise RKLLamaError(
            f"{describe_listener(port)} listens on port {port} already",
            hint="Stop it, or have the service listen elsewhere with --host 127.0.0.1:PORT.",
        )


# --- What is done ------------------------------------------------------------------------------


def _print_script(steps: "list[Step]") -> None:
    if not steps:
        sys.stderr.write("There is nothing to do.\n")
    for step in steps:
        sys.stdout.write(f"# {step.about}\n{step.line()}\n")


def _carry_out(steps: "list[Step]") -> bool:
    """Do the steps and say so; return whether any was needed."""
    from ...systemd.steps import carry_out

    changed = False
    for step, told in carry_out(steps):
        sys.stderr.write(f"{step.about}\n")
        if told:
            sys.stderr.write(f"  {told}\n")
        changed = True
    return changed


def _say_what_stayed(steps: "list[Step]", otherwise: str) -> None:
    from ...console.output import print_note

    for step in steps:
        if getattr(step, "is_kept", False):
            path = getattr(step, "path", "")
            print_note(f"{path} stays as it is: it is not as it was installed. {otherwise}.")


def _say_installed(plan: "Plan", *, changed: bool) -> None:
    from ...systemd.status import address_of
    from ...systemd.units import SOCKET

    manager = plan.manager
    if not changed:
        sys.stderr.write("The service is installed already; nothing has changed.\n")
    if manager.root:
        return
    address = address_of(manager.show(SOCKET))
    sys.stderr.write(f"RKLLama listens on http://{address}\n")
    if manager.user:
        import getpass

        name = getpass.getuser()
        if not os.path.exists(f"/var/lib/systemd/linger/{name}"):
            sys.stderr.write(
                f"It is there while you are logged in. For always: sudo loginctl enable-linger {name}\n"
            )
