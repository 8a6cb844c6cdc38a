"""`rkllama service`: the server as a service of systemd, for one user or for all."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidRequest, RKLLamaError
from .common import JSONFlag, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..systemd.install import Plan
    from ..systemd.manager import Manager
    from ..systemd.moving import Move, Owner
    from ..systemd.status import Status
    from ..systemd.steps import Step
    from ..systemd.units import DropIn

app = typer.Typer(
    name="service",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run the server as a service of systemd.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ForUser = Annotated[
    bool | None,
    typer.Option(
        "--user/--system",
        help="For you alone, or for all users, which needs root. [default: --system as root]",
    ),
]
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
            help="End the idle server after TIME, until the next connection; -1: it runs always. "
            "[default: 10m]",
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
        typer.Option(metavar="FILE", help="The rkllama that the service runs. [default: this one]"),
    ] = None,
    root: Root = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Install, change or update the service; what is as it should be stays.

    With neither root nor --system it is for you alone and has your models. The socket belongs to systemd:
    the first connection starts the server, and an idle one ends.
    """
    from ..console.output import print_note
    from ..systemd.install import Plan, can_write, check_program
    from ..systemd.steps import pending

    manager = _manager(user, root, dry_run=dry_run)
    address = None if host is None else _address(host)
    plan = Plan(
        manager,
        _program(program),
        drop_ins=_drop_ins(address, models, exit_idle),
        always_on=exit_idle is not None and _is_never(exit_idle),
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
        changed |= _care_for_models(manager, move_models)
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
    from ..console.terminal import agreed, can_ask
    from ..systemd.install import removal
    from ..systemd.steps import pending
    from ..systemd.units import HOME

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


@app.command()
def status(user: ForUser = None, as_json: JSONFlag = False) -> None:
    """Show whether the service is installed, enabled and running.

    The exit code is 1 if it is not installed, was stopped or fails.
    """
    from ..systemd.manager import Manager
    from ..systemd.status import read_status

    Manager().require()
    services, errors = [], []
    for scope in (False, True) if user is None else (user,):
        try:
            services.append(read_status(Manager(user=scope)))
        except RKLLamaError as error:  # root has no manager of its own, for one
            errors.append(error)
    found = [service for service in services if service is not None]
    if errors and (user is not None or not services):
        raise errors[0]
    rows = [(service, _server_of(service)) for service in found]
    if as_json:
        print_json([{**service._asdict(), "server": server} for service, server in rows])
    else:
        _show(rows)
    if not any(service.state in ("running", "waiting") for service in found):
        raise typer.Exit(1)


# --- What is asked for -------------------------------------------------------------------------


def _manager(user: bool | None, root: str | None, *, dry_run: bool) -> "Manager":
    """Return whom to install with. Raises InvalidRequest, RKLLamaError."""
    from ..systemd.manager import Manager

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

    from ..config import server_address

    name, port = server_address(host)
    name = "127.0.0.1" if name == "localhost" else name
    try:
        if port == 0:
            raise ValueError
        ip = ipaddress.ip_address(name)
    except ValueError:
        raise InvalidRequest(
            f"a service cannot listen on {host!r}",
            hint="It takes an IP address and a port: 127.0.0.1:8080, or 0.0.0.0:8080 for all networks.",
        ) from None
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _drop_ins(address: str | None, models: str | None, exit_idle: str | None) -> "list[DropIn]":
    from ..systemd.units import address_drop_ins, exit_idle_drop_in, models_drop_in

    found = [] if address is None else address_drop_ins(address)
    if models is not None:
        found.append(models_drop_in(os.path.abspath(os.path.expanduser(models))))
    if exit_idle is not None:
        _is_never(exit_idle)  # it raises what is wrong with it
        found.append(exit_idle_drop_in(exit_idle))
    return found


def _is_never(exit_idle: str) -> bool:
    """Return whether a time is the one that never comes. Raises ConfigError."""
    from ..config import load_settings

    return load_settings({"exit_idle": exit_idle}).exit_idle is None


def _wants_key(key: bool | None, address: str | None) -> bool:
    from ..config import is_loopback, server_address

    if key is not None or address is None:
        return bool(key)
    return not is_loopback(server_address(address)[0])


def _key_file(manager: "Manager") -> str:
    from ..config import load_settings
    from ..systemd.units import HOME

    return os.path.join(load_settings().home if manager.user else HOME, "keys")


def _check_address(manager: "Manager", address: str | None) -> None:
    """Raise RKLLamaError where another program has the service's address."""
    from ..board.proc import describe_listener, listener_uids
    from ..config import server_address
    from ..systemd.status import address_of

    if manager.root:
        return
    socket = manager.show("rkllama.socket")
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
    from ..systemd.steps import carry_out

    changed = False
    for step, told in carry_out(steps):
        sys.stderr.write(f"{step.about}\n")
        if told:
            sys.stderr.write(f"  {told}\n")
        changed = True
    return changed


def _say_what_stayed(steps: "list[Step]", otherwise: str) -> None:
    from ..console.output import print_note

    for step in steps:
        if getattr(step, "is_kept", False):
            path = getattr(step, "path", "")
            print_note(f"{path} stays as it is: it is not as it was installed. {otherwise}.")


def _say_installed(plan: "Plan", *, changed: bool) -> None:
    from ..systemd.status import address_of

    manager = plan.manager
    if not changed:
        sys.stderr.write("The service is installed already; nothing has changed.\n")
    if manager.root:
        return
    address = address_of(manager.show("rkllama.socket"))
    sys.stderr.write(f"RKLLama listens on http://{address}\n")
    if manager.user:
        import getpass

        name = getpass.getuser()
        if not os.path.exists(f"/var/lib/systemd/linger/{name}"):
            sys.stderr.write(
                f"It is there while you are logged in. For always: sudo loginctl enable-linger {name}\n"
            )


# --- Models that were there before -------------------------------------------------------------


def _care_for_models(manager: "Manager", decision: bool | None) -> bool:
    """Move the user's models to the service where that is wanted, else say that it does not see them;
    return whether they were moved.
    """
    from ..console.output import human_size
    from ..console.terminal import agreed, can_ask
    from ..systemd.install import owner_of_service
    from ..systemd.moving import Move, Owner
    from ..systemd.status import models_of
    from ..systemd.units import HOME

    uid, home = _whose_models()
    owner = Owner(*owner_of_service(manager))
    source, target = os.environ.get("RKLLAMA_MODELS") or f"{home}/models", models_of(manager)
    size = Move(source, uid, target, owner).size()
    if not size or os.path.realpath(source) == os.path.realpath(target):
        return False
    if decision is None and can_ask():
        decision = agreed(f"Move the {human_size(size)} in {source} to the service?", default=True)
    if not decision:
        sys.stderr.write(
            f"The service does not see the models in {source} ({human_size(size)}). "
            "To move them: sudo rkllama service install --move-models\n"
        )
        return False
    own = f"{manager.root}{HOME}"
    for place, destination in ((source, target), (f"{home}/lib", f"{own}/lib")):
        move = Move(place, uid, destination, owner)
        if move.size():
            _make_place(destination, owner)
            _move(move, place)
    if os.path.isfile(f"{home}/config.toml") and not os.path.lexists(f"{own}/config.toml"):
        sys.stderr.write(
            f"The settings in {home}/config.toml are still yours alone. To give them to the service:\n"
            f"  sudo install -o rkllama -m 600 {home}/config.toml {own}/config.toml\n"
        )
    return True


def _whose_models() -> tuple[int, str]:
    """Return the uid of the user for whom root works, and RKLLama's home of that one."""
    import pwd

    uid = int(os.environ.get("SUDO_UID") or os.getuid()) if os.geteuid() == 0 else os.getuid()
    try:
        home = pwd.getpwuid(uid).pw_dir if "SUDO_UID" in os.environ else os.path.expanduser("~")
    except KeyError:
        home = os.path.expanduser("~")
    return uid, os.environ.get("RKLLAMA_HOME") or os.path.join(home, "RKLLAMA")


def _make_place(path: str, owner: "Owner") -> None:
    from ..systemd.moving import make_place

    try:
        make_place(*os.path.split(path), owner)
    except OSError as error:
        raise RKLLamaError(f"{path} cannot be made: {error.strerror}") from None


def _move(move: "Move", source: str) -> None:
    from ..console.output import human_size, print_note
    from ..console.terminal import Spinner

    shown = ["…"]

    def report(name: str, done: int) -> None:
        shown[0] = f"{name} ({human_size(done)} moved)"

    with Spinner(lambda: f"Moving {shown[0]}"):
        moved = move.run(report)
    for text in moved.stayed:
        print_note(f"not moved: {text}")
    files = "1 file" if moved.files == 1 else f"{moved.files} files"
    sys.stderr.write(f"Moved {files} ({human_size(moved.size)}) from {source}\n")


# --- Status ------------------------------------------------------------------------------------


def _server_of(service: "Status") -> dict[str, Any] | None:
    """Return what the running server says of itself; None where none runs: a question would start it."""
    if service.state != "running":
        return None
    from ..client.discover import ServerAddress
    from ..config import load_settings, server_address

    host, port = server_address(service.address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    name = f"[{host}]" if ":" in host else host
    try:
        return ServerAddress(load_settings(), f"{name}:{port}", with_key=False).get("/health")
    except RKLLamaError as error:
        return {"error": error.text}


def _show(rows: "Iterable[tuple[Status, dict[str, Any] | None]]") -> None:
    from ..console.output import table, write_styled

    rows = list(rows)
    if not rows:
        sys.stderr.write("The service is not installed. Install it: rkllama service install\n")
    for number, (service, server) in enumerate(rows):
        sys.stdout.write("\n" * bool(number))
        write_styled(table(("SERVICE", _who(service)), list(_facts(service, server))))


def _who(service: "Status") -> str:
    return "of all users" if service.scope == "system" else "of this user"


def _facts(service: "Status", server: dict[str, Any] | None) -> "Iterator[tuple[str, str]]":
    from .. import __version__

    yield "unit", service.file + " (edited)" * service.edited
    yield from (("drop-in", path) for path in service.drop_ins)
    start = "at boot" if service.scope == "system" else "at login"
    how = f"the server starts {start}" if service.always_on else "a connection starts the server"
    yield "enabled", f"yes, {how}" if service.enabled else "no"
    process = f" (process {service.pid})" if service.pid else ""
    yield "state", service.state + process + (f": {service.result}" if service.result else "")
    yield "address", f"http://{service.address}"
    yield "home", service.home
    yield "models", service.models
    if server is not None:
        version = server.get("version")
        other = "" if version in (__version__, None) else f"; this is {__version__}"
        yield ("version", f"{version}{other}") if version else ("note", str(server.get("error")))
    if service.reload_needed:
        user = " --user" if service.scope == "user" else ""
        yield "note", f"its files have changed: systemctl{user} daemon-reload"
