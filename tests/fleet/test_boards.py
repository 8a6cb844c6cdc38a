"""boards.toml, and what a board may be called."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rkllama.errors import ConfigError, InvalidRequest
from rkllama.fleet.boards import (
    Board,
    Fleet,
    check_boards,
    checked,
    fleet_text,
    parse_board,
    parse_boards,
    read_fleet,
    write_fleet,
)
from rkllama.fleet.files import start_line
from rkllama.fleet.mdns import parse_browsed
from tests.cases import cases


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("192.168.1.11", "192.168.1.11", "192.168.1.11:8080"),
        ("rk1.local", "rk1", "rk1.local:8080"),
        ("rk1:9000", "rk1", "rk1:9000"),
        ("http://rk1:9000/", "rk1", "rk1:9000"),
        ("left=10.0.0.1:80", "left", "10.0.0.1:80"),
        ("[fe80::1]:8080", "fe80--1", "[fe80::1]:8080"),
        ("six=::1", "six", "[::1]:8080"),
    ],
)
def test_a_board_is_named_as_people_write_addresses(text: str, name: str, address: str) -> None:
    board = parse_board(text)
    assert (board.name, board.address) == (name, address)


@cases(
    "text",
    [
        "",
        "a b=10.0.0.1",
        "x\n    server evil=10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:70000",
        "https://rk1",
        "rk1/path",
        "-rk1",
        "'=10.0.0.1",
        "rk1 check",
        "%[env(HOME)]",
        "[::1",
        "fe80::1%eth0",
        "fe80::1%x\n    server evil 10.0.0.1:80",
    ],
)
def test_what_could_not_stand_in_a_configuration_is_no_board(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_board(text)


def test_boards_of_one_host_are_told_apart_by_their_ports() -> None:
    boards = parse_boards(["rk1.local:8080", "rk1.local:8081"])
    assert [board.name for board in boards] == ["rk1", "rk1-8081"]


@pytest.mark.parametrize(
    "texts", [[], ["a=10.0.0.1", "A=10.0.0.2"], ["a=10.0.0.1", "b=10.0.0.1:8080"]]
)
def test_boards_that_are_one_are_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        parse_boards(texts)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    fleet = Fleet(
        boards=(Board(name="a", host="10.0.0.1"), Board(name="b", host="::1", port=1, parallel=4)),
        listen="0.0.0.0:443",
        certificate="/etc/a certificate.pem",
    )
    write_fleet(str(tmp_path / "new"), fleet)
    assert read_fleet(str(tmp_path / "new")) == fleet


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it names no board"),
        ("boards = []", "unknown keys: 'boards'"),
        ("[[board]]\nadress = 'rk1'", "board 1 has unknown keys: 'adress'"),
        ("[[board]]\naddress = 'rk1'\nparallel = true", "parallel must be"),
        ("[[board]]\naddress = 'a b'", "'a b' is not an address"),
        ("listen = 'x'\n[[board]]\naddress = 'rk1'", "'x' is not an address"),
        ("peers = '127.0.0.1:8404'\n[[board]]\naddress = 'rk1'", "three addresses"),
        ("certificate = \"/a'b\"\n[[board]]\naddress = 'rk1'", "it has a quote"),
        ("[[board", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_says_what_is(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "boards.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"boards\.toml") as raised:
        read_fleet(str(tmp_path))
    assert told in raised.value.message


def test_a_missing_file_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_fleet(str(tmp_path))
    assert "rkllama fleet init" in str(raised.value.hint)


def test_a_port_alone_is_every_address() -> None:
    fleet = checked(Fleet(boards=(Board(name="a", host="10.0.0.1"),), listen=":8090"))
    assert fleet.listen == "0.0.0.0:8090"
    assert "certificate" not in fleet_text(fleet)


def test_what_announces_itself_is_believed_only_as_far_as_it_is_an_address() -> None:
    text = (
        "+;eth0;IPv4;rk1;_rkllama._tcp;local\n"
        '=;eth0;IPv4;rk1\\032kitchen;_rkllama._tcp;local;rk1.local;10.0.0.1;8080;"x"\n'
        "=;eth0;IPv6;rk1;_rkllama._tcp;local;rk1.local;fe80::1;8080;\n"
        "=;eth0;IPv4;;_rkllama._tcp;local;rk2.local;10.0.0.2;8080;\n"
        "=;eth0;IPv4;rk3;_rkllama._tcp;local;rk3.local;10.0.0.3 check;8080;\n"
        "=;eth0;IPv4;rk4;_rkllama._tcp\n"
    )
    (board,) = parse_browsed(text)
    assert (board.name, board.address) == ("rk1-kitchen", "10.0.0.1:8080")


def test_what_announces_itself_makes_boards_that_can_be_told_apart() -> None:
    rows = [("rk1", "10.0.0.1"), ("rk2", "10.0.0.1"), ("RK1", "10.0.0.3"), ("rk3", "10.0.0.3")]
    rows += [(f"z{number}", f"10.1.{number // 250}.{number % 250}") for number in range(2000)]
    line = "=;eth0;IPv4;{};_rkllama._tcp;local;x.local;{};8080;\n"
    boards = parse_browsed("".join(line.format(*row) for row in rows))
    check_boards(boards)
    assert {"rk1", "rk3"} & {board.name for board in boards} == {"rk1", "rk3"}


def init(directory: Path, *arguments: str) -> str:
    """Run `rkllama fleet init` in this process; return what it says."""
    from typer.testing import CliRunner

    from rkllama.commands.fleet.app import app

    done = CliRunner().invoke(app, ["init", f"--directory={directory}", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def _no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkllama.fleet.files.find_haproxy", lambda: None)


@pytest.mark.usefixtures("_no_haproxy")
def test_other_boards_keep_what_was_edited_beside(tmp_path: Path) -> None:
    """Also the number of requests of a board that is named again."""
    init(tmp_path, "rk1=127.0.0.1:1", "rk2=127.0.0.1:2")
    file = tmp_path / "boards.toml"
    edited = file.read_text().replace(
        'address = "127.0.0.1:1"', 'address = "127.0.0.1:1"\nparallel = 4'
    )
    file.write_text(edited + "# mine\n")
    assert f"Wrote {file}" not in init(tmp_path)
    assert file.read_text().endswith("# mine\n")
    said = init(tmp_path, "new=127.0.0.1:1", "--listen=:9000")
    assert f"The file that you had edited is now {file}.old." in said
    assert (tmp_path / "boards.toml.old").read_text() == edited + "# mine\n"
    assert read_fleet(str(tmp_path)) == Fleet(
        boards=(Board(name="new", host="127.0.0.1", port=1, parallel=4),), listen="0.0.0.0:9000"
    )


@pytest.mark.usefixtures("_no_haproxy")
def test_what_is_said_after_an_init(tmp_path: Path) -> None:
    said = init(tmp_path, "rk1=127.0.0.1:1")
    assert "Note: rk1 (127.0.0.1:1): Connection refused" in said
    assert "sudo apt install haproxy" in said
    assert f"haproxy -D -f {tmp_path}/haproxy.cfg" in said
    assert "http://127.0.0.1:8090" in said
    assert init(tmp_path).endswith("Nothing has changed.\n")
    assert f"http://{socket.gethostname()}:9000" in init(tmp_path, "--listen=:9000")


@pytest.mark.usefixtures("_no_haproxy")
def test_a_haproxy_that_runs_is_replaced_and_not_joined_by_a_second(tmp_path: Path) -> None:
    first = start_line(f"{tmp_path}/haproxy.cfg", running=False)
    assert first == f"haproxy -D -f {tmp_path}/haproxy.cfg -p {tmp_path}/haproxy.pid"
    again = start_line(f"{tmp_path}/haproxy.cfg", running=True)
    assert again == f"{first} -sf $(cat {tmp_path}/haproxy.pid)"
    for running in (False, True):
        line = start_line("/etc/haproxy/haproxy.cfg", running=running)
        assert line == "sudo systemctl reload-or-restart haproxy"


def test_haproxy_is_named_by_its_path_where_a_user_does_not_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sbin" / "haproxy"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr("rkllama.fleet.files._PROGRAMS", (str(program),))
    monkeypatch.setenv("PATH", "/nowhere")
    assert start_line("/f/haproxy.cfg", running=False).startswith(f"{program} -D -f ")
