"""The models that a user had before the service for all users came: moved to it, or told of."""

import os
import sys
from typing import TYPE_CHECKING

from ...errors import RKLLamaError

if TYPE_CHECKING:
    from ...systemd.manager import Manager
    from ...systemd.moving import Move, Owner


def care_for_models(manager: "Manager", decision: bool | None) -> bool:
    """Move the user's models to the service where that is wanted, else say that it does not see them;
    return whether they were moved.
    """
    from ...console.output import human_size
    from ...console.terminal import agreed, can_ask
    from ...systemd.moving import Move, Owner
    from ...systemd.state import owner_of_service
    from ...systemd.status import models_of
    from ...systemd.units import HOME

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
    from ...systemd.moving import make_place

    try:
        make_place(*os.path.split(path), owner)
    except OSError as error:
        raise RKLLamaError(f"{path} cannot be made: {error.strerror}") from None


def _move(move: "Move", source: str) -> None:
    from ...console.output import human_size, print_note
    from ...console.terminal import Spinner

    shown = ["…"]

    def report(name: str, done: int) -> None:
        shown[0] = f"{name} ({human_size(done)} moved)"

    with Spinner(lambda: f"Moving {shown[0]}"):
        moved = move.run(report)
    for text in moved.stayed:
        print_note(f"not moved: {text}")
    files = "1 file" if moved.files == 1 else f"{moved.files} files"
    sys.stderr.write(f"Moved {files} ({human_size(moved.size)}) from {source}\n")
