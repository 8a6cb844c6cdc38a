"""The files of the service: what they say, and that systemd understands and confines what they describe."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rkllama.board.lock import SERVICE_USER
from rkllama.commands.service.install import _address
from rkllama.config import SETTINGS
from rkllama.errors import InvalidRequest
from rkllama.systemd import units
from rkllama.systemd.units import SYSTEM_FILES, USER_FILES, DropIn, UnitFile, render
from tests.running import LIMIT

PROGRAM = ("/usr/bin/env", "rkllama")
LARGEST_EXPOSURE = {"rkllama.service": 4.0, "rkllama-governors.service": 1.0}
"""As systemd counts, from 0 to 10; what runs as root is confined more."""
DATA = Path(units.__file__).parent / "data"


def test_every_file_of_the_data_is_installed() -> None:
    files = {str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.is_file()}
    assert {file.source for file in (*SYSTEM_FILES, *USER_FILES)} == files


@pytest.mark.parametrize("file", [*SYSTEM_FILES, *USER_FILES], ids=lambda file: str(file.target))
def test_nothing_is_left_open(file: UnitFile) -> None:
    text = render(file, PROGRAM)
    assert not re.search(r"@[A-Z_]+@", text)
    if file.name == "rkllama.service":
        assert "\nExecStart=/usr/bin/env rkllama serve\n" in text
        assert "\nType=notify\n" in text
        assert "\nRequires=rkllama.socket\n" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("/opt/rkllama/bin/rkllama",), "/opt/rkllama/bin/rkllama"),
        (("/opt/my files/rkllama",), '"/opt/my files/rkllama"'),
        (("/opt/100%/$HOME", ""), '/opt/100%%/$$HOME ""'),
        (('/opt/"a\\b"',), '"/opt/\\"a\\\\b\\""'),
    ],
)
def test_the_program_is_quoted_for_systemd(words: tuple[str, ...], line: str) -> None:
    assert units.command_line(words) == line


@pytest.mark.parametrize("end", ["\n", "\r", "\x00", "\x1b[2K", "\u2028", "\udcff"])
def test_no_name_writes_a_setting_of_its_own(end: str) -> None:
    name = f"/srv/a{end}ExecStartPre=/bin/sh"
    with pytest.raises(InvalidRequest, match="control characters"):
        units.models_drop_in(name)
    with pytest.raises(InvalidRequest, match="control characters"):
        render(SYSTEM_FILES[3], (name,))
    with pytest.raises(InvalidRequest, match="control characters"):
        units.address_drop_ins(f"[fe80::1%x{end}ListenStream=0.0.0.0:1]:80")


@pytest.mark.parametrize("scope", ["x\nListenStream=0.0.0.0:1", "a b", "$(id)", '"'])
def test_no_scope_of_an_address_is_more_than_a_name(scope: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot listen on"):
        _address(f"[fe80::1%{scope}]:80")


def test_the_scope_of_an_address_is_written_for_systemd() -> None:
    socket, _ = units.address_drop_ins(_address("[fe80::1%eth0]:80"))
    assert socket.text.endswith("\nListenStream=[fe80::1%%eth0]:80\n")


def test_the_user_has_one_name() -> None:
    texts = "".join(path.read_text() for path in DATA.glob("rkllama.*"))
    assert f"\nUser={SERVICE_USER}\n" in texts
    assert f"\nu {SERVICE_USER} " in texts
    assert f" {units.HOME} 0755 {SERVICE_USER} " in texts


def test_the_variables_are_settings() -> None:
    known = {setting.variable for setting in SETTINGS}
    texts = "".join(path.read_text() for path in DATA.rglob("*") if path.is_file())
    assert set(re.findall(r"RKLLAMA_[A-Z_]+", texts)) <= known


DROP_INS = (
    *units.address_drop_ins("0.0.0.0:9090"),
    units.exit_idle_drop_in("30m"),
    units.keys_drop_in("/var/lib/rkllama/keys"),
    units.models_drop_in("/home/me/my models"),
)


def drop_in(name: str) -> DropIn:
    (found,) = [one for one in DROP_INS if one.place == name]
    return found


def test_what_was_chosen_is_beside_the_units() -> None:
    assert drop_in("rkllama.socket.d/50-address.conf").text.endswith(
        "ListenStream=\nListenStream=0.0.0.0:9090\n"
    )
    assert drop_in("rkllama.service.d/50-models.conf").text == (
        '[Service]\nEnvironment="RKLLAMA_MODELS=/home/me/my models"\n'
        'ReadWritePaths="-/home/me/my models"\nProtectHome=read-only\n'
    )


def test_a_program_in_a_home_can_be_seen() -> None:
    found = units.program_drop_in("/home/me/.rkllama/bin/rkllama")
    assert found is not None
    assert found.text == "[Service]\nProtectHome=read-only\n"
    assert units.program_drop_in("/opt/rkllama/bin/rkllama") is None


# --- With systemd's own tools ------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A directory with the units of the service for all users, and what can be chosen."""
    for file in SYSTEM_FILES:
        (tmp_path / file.name).write_text(render(file, PROGRAM))
    for one in DROP_INS:
        path = tmp_path / one.place
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.text)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )


UNITS = [file.name for file in SYSTEM_FILES if file.is_unit]


@pytest.mark.integration
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_the_units(written: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", str(written / unit))
    ours = [line for line in done.stderr.splitlines() if str(written) in line or "rkllama" in line]
    # The user is made by the installation.
    assert [line for line in ours if "Failed to resolve" not in line] == []


@pytest.mark.integration
def test_systemd_understands_the_units_of_a_user(tmp_path: Path) -> None:
    for file in USER_FILES:
        (tmp_path / file.name).write_text(render(file, PROGRAM))
    done = analyze("--user", "verify", "--man=no", str(tmp_path / "rkllama.service"))
    assert "rkllama" not in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_services_are_confined(written: Path, unit: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(written / unit))
    if "offline" in done.stderr:
        pytest.skip("needs systemd 250")
    match = re.search(rf"exposure level for {unit}: ([\d.]+)", done.stdout)
    assert match is not None, done.stderr
    assert float(match[1]) <= LARGEST_EXPOSURE[unit]
