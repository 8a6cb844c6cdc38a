"""What the helper of root's does with the governors of a board, in this process."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.board.governor_helper import HOLD, Helper, _local_socket, state_directory
from rkllama.board.governor_keeper import Keeper
from rkllama.files import NewFile
from tests.board.governors import BEFORE, CPU, FAST, NPU, governors, listen
from tests.waiting import Task, until


@pytest.fixture
def keeper(board: Path) -> Keeper:
    """One whose state is where the board's is."""
    return Keeper(state_directory())


def write(board: Path, path: str, text: str) -> None:
    (board / path.lstrip("/")).write_text(text)


def test_all_are_set_and_put_back(keeper: Keeper) -> None:
    report = keeper.hold()
    assert report == (tuple(BEFORE), {})
    assert governors() == FAST
    keeper.release()
    assert governors() == BEFORE


def test_what_was_before_is_on_the_disk_while_it_holds(board: Path, keeper: Keeper) -> None:
    file = board / "run/rkllama-governors/before.json"
    keeper.hold()
    assert json.loads(file.read_text())[NPU] == "rknpu_ondemand"
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0
    keeper.release()
    assert not file.exists()


def test_nothing_is_set_where_what_was_before_cannot_be_kept(board: Path, keeper: Keeper) -> None:
    (board / "run/rkllama-governors/before.json").mkdir()
    with pytest.raises(IsADirectoryError):
        keeper.hold()
    assert governors() == BEFORE


def test_what_somebody_sets_meanwhile_stays(board: Path, keeper: Keeper) -> None:
    keeper.hold()
    write(board, NPU, "userspace\n")
    keeper.hold()
    assert governors()["npu"] == "userspace"
    keeper.release()
    assert governors() == {**BEFORE, "npu": "userspace"}


def test_a_second_helper_leaves_alone_what_somebody_has_set(board: Path, keeper: Keeper) -> None:
    keeper.hold()
    write(board, NPU, "userspace\n")
    other = Keeper(state_directory())
    assert other.hold().set == ()
    assert governors()["npu"] == "userspace"
    other.release()
    keeper.release()
    assert governors() == {**BEFORE, "npu": "userspace"}


def test_what_was_fast_before_stays_fast(board: Path, keeper: Keeper) -> None:
    write(board, CPU.format(4), "performance\n")
    assert "cpu4-5" not in keeper.hold().set
    keeper.release()
    assert governors() == {**BEFORE, "cpu4-5": "performance"}


def test_a_governor_that_the_kernel_does_not_offer_is_not_written(
    board: Path, keeper: Keeper
) -> None:
    write(board, NPU.replace("/governor", "/available_governors"), "rknpu_ondemand userspace\n")
    assert "npu" not in keeper.hold().set
    assert governors() == {**FAST, "npu": "rknpu_ondemand"}


def test_what_could_not_be_put_back_is_not_changed(board: Path, keeper: Keeper) -> None:
    write(board, CPU.format(0), "interactive\n")
    assert "cpu0-3" not in keeper.hold().set
    assert governors() == {**FAST, "cpu0-3": "interactive"}


def test_of_several_helpers_the_last_one_puts_back(keeper: Keeper) -> None:
    other = Keeper(state_directory())
    keeper.hold()
    other.hold()
    keeper.release()
    assert governors() == FAST
    other.release()
    assert governors() == BEFORE


def test_a_new_helper_does_not_take_the_governors_from_another(keeper: Keeper) -> None:
    keeper.hold()
    Keeper(state_directory())
    assert governors() == FAST
    keeper.release()
    assert governors() == BEFORE


@pytest.mark.parametrize("text", ["", "[1]", '{"/etc/passwd": "x", "/sys/kernel/y": 3}', "{"])
def test_a_state_that_says_something_else_changes_nothing(board: Path, text: str) -> None:
    (board / "run/rkllama-governors").mkdir()
    (board / "etc/passwd").write_text("performance\n")
    write(board, "/run/rkllama-governors/before.json", text)
    Keeper(state_directory())
    assert governors() == BEFORE
    assert (board / "etc/passwd").read_text() == "performance\n"


def test_no_link_is_followed_to_another_file(board: Path, keeper: Keeper) -> None:
    target = board / "target"
    target.write_text("rknpu_ondemand\n")
    (board / NPU.lstrip("/")).unlink()
    (board / NPU.lstrip("/")).symlink_to(target)
    assert "npu" in keeper.hold().refused
    assert target.read_text() == "rknpu_ondemand\n"


# --- Connections -------------------------------------------------------------------------------


class Serving:
    """A helper in a thread, and connections to it."""

    def __init__(self, keeper: Keeper, board: Path, **times: float) -> None:
        self._board = board
        self.listener = listen(board)
        self.wake, self._told = os.pipe()
        helper = Helper(keeper, self.listener, None, **times)
        self.task = Task(lambda: helper.run(self.wake))

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(self.listener.getsockname())
        return connection

    def stop(self) -> None:
        os.write(self._told, b"x")
        self.task.result()
        self.listener.close()
        os.close(self.wake)
        os.close(self._told)


@pytest.fixture
def serving(keeper: Keeper, board: Path) -> Iterator[Serving]:
    """A helper that waits for connections."""
    served = Serving(keeper, board, idle=60, patience=60)
    yield served
    served.stop()


def has_ended(connection: socket.socket) -> bool:
    """Whether the helper has hung up; waits for it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_governors_are_held_until_the_last_connection_ends(serving: Serving) -> None:
    first, second = serving.connect(), serving.connect()
    first.sendall(HOLD)
    assert json.loads(first.recv(4096)) == {"set": list(BEFORE), "refused": {}}
    second.sendall(HOLD)
    assert json.loads(second.recv(4096)) == {"set": [], "refused": {}}
    first.close()
    third = serving.connect()
    third.sendall(HOLD)
    third.recv(4096)
    assert governors() == FAST
    second.close()
    third.close()
    until(lambda: governors() == BEFORE)


def test_the_end_of_the_helper_puts_back(keeper: Keeper, board: Path) -> None:
    serving = Serving(keeper, board)
    with serving.connect() as connection:
        connection.sendall(HOLD)
        connection.recv(4096)
        assert governors() == FAST
        serving.stop()
        assert governors() == BEFORE


@pytest.mark.parametrize("asked", [b"x", b"hh", b"/sys/class/devfreq/dmc/governor", b"\0"])
def test_who_asks_for_anything_else_is_sent_away(serving: Serving, asked: bytes) -> None:
    with serving.connect() as connection:
        connection.sendall(asked)
        assert has_ended(connection)
    assert governors() == BEFORE


def test_who_asks_twice_is_sent_away_and_holds_nothing(serving: Serving) -> None:
    with serving.connect() as connection:
        connection.sendall(HOLD)
        connection.recv(4096)
        connection.sendall(HOLD)
        assert has_ended(connection)
    until(lambda: governors() == BEFORE)


def test_who_asks_for_nothing_is_sent_away(keeper: Keeper, board: Path) -> None:
    serving = Serving(keeper, board, patience=0.05)
    with serving.connect() as connection:
        assert has_ended(connection)
    serving.stop()


def test_connections_are_limited(serving: Serving) -> None:
    held = [serving.connect() for _ in range(16)]
    for connection in held:
        connection.sendall(HOLD)
        connection.recv(4096)
    with serving.connect() as late:
        assert has_ended(late)
    for connection in held:
        connection.close()


def test_a_helper_without_work_ends(keeper: Keeper, board: Path) -> None:
    serving = Serving(keeper, board, idle=0.05)
    serving.task.result()
    with serving.connect() as connection:  # systemd's socket keeps it for the next helper
        assert connection.fileno() >= 0
    serving.listener.close()


def test_a_connection_of_ones_own_needs_no_socket(keeper: Keeper) -> None:
    ours, theirs = socket.socketpair()
    wake, told = os.pipe()
    task = Task(lambda: Helper(keeper, None, theirs).run(wake))
    with ours:
        ours.sendall(HOLD)
        assert json.loads(ours.recv(4096))["set"] == list(BEFORE)
    task.result()
    assert governors() == BEFORE
    os.close(wake)
    os.close(told)


# --- Hostile files -----------------------------------------------------------------------------


def test_what_was_set_is_put_back_where_the_state_cannot_be_written_again(
    board: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    (board / NPU.lstrip("/")).unlink()
    (board / NPU.lstrip("/")).symlink_to("other")  # what is refused is taken out of the state
    (board / NPU.lstrip("/")).with_name("other").write_text("rknpu_ondemand\n")
    written, places = NewFile.place, []

    def full(new: NewFile, path: str) -> None:
        places.append(path)
        if len(places) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(new, path)

    monkeypatch.setattr(NewFile, "place", full)
    with pytest.raises(OSError, match="No space"):
        keeper.hold()
    assert governors() == BEFORE


def test_what_cannot_be_put_back_now_is_put_back_by_the_next_helper(
    board: Path, keeper: Keeper
) -> None:
    keeper.hold()
    policy = board / CPU.format(4).lstrip("/").rpartition("/")[0]
    policy.rename(board / "switched-off")
    keeper.release()
    (board / "switched-off").rename(policy)
    assert governors() == {**BEFORE, "cpu4-5": "performance"}
    Keeper(state_directory())
    assert governors() == BEFORE
    assert not (board / "run/rkllama-governors/before.json").exists()


@pytest.mark.parametrize("kind", ["deep", "pipe", "endless", "huge"])
def test_a_state_that_cannot_be_read_keeps_no_helper_from_starting(board: Path, kind: str) -> None:
    file = board / "run/rkllama-governors/before.json"
    file.parent.mkdir()
    if kind == "deep":
        file.write_text("[" * 50_000)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    else:
        os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 1 << 40)
    Task(lambda: Keeper(state_directory())).result()
    assert governors() == BEFORE


@pytest.mark.parametrize("place", ["within", "outside"])
def test_nothing_is_written_where_a_device_leads_out_of_sys(
    board: Path, keeper: Keeper, tmp_path: Path, place: str
) -> None:
    target = board / "home" if place == "within" else tmp_path / "home"
    device = board / NPU.lstrip("/").rpartition("/")[0]
    device.rename(target)
    device.symlink_to(target)
    keeper.hold()
    assert (target / "governor").read_text().strip() == "rknpu_ondemand"


def test_a_socket_that_does_not_listen_is_refused() -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for family in (socket.AF_UNIX, socket.AF_INET):
            with socket.socket(family, kind) as given, pytest.raises(OSError, match="another kind"):
                _local_socket(given.fileno(), listens=True)
