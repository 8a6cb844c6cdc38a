"""`--fix`: what is done at once, what is asked, and the script with the rest."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.doctor.checks import BOARD, examine
from rkllama.doctor.cures import Fixed, fix, kind_of
from rkllama.doctor.finding import Finding, Status, Subject
from rkllama.doctor.software.home import check_secrets
from tests.boards import build_board, names, put_models
from tests.cases import cases
from tests.doctor.examine import wrong


def finding(*cure: str, status: Status = "broken", found: str = "it is wrong") -> Finding:
    return Finding(
        check="x", status=status, title="A thing", found=found, advice="Cure it.", cure=cure
    )


def repair(
    findings: Sequence[Finding], models: Path | str = "/nowhere", *, agree: bool = False
) -> tuple[Fixed, list[str], list[str]]:
    """What has been done, the questions that were asked, and what was said."""
    asked: list[str] = []
    said: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return agree

    return fix(findings, str(models), agree=answer, say=said.append), asked, said


@cases(
    ("line", "kind"),
    [
        ("chmod 600 '/home/me/a file'", "do"),
        ("chmod 777 /home/me/x", "hand"),
        ("chmod -R 600 /home/me/x", "hand"),
        ("rkllama runtime install", "ask"),
        ("rkllama runtime install 1.2.3", "ask"),
        ("rkllama runtime use 1.2.3 'my model'", "ask"),
        ("rkllama pull user/repo/m.rkllm", "ask"),
        ("mv /a/x /a/x.unusable", "ask"),
        ("mv /a/x /etc/passwd", "hand"),
        ("rkllama rm model", "hand"),
        ("rkllama rm sudo", "hand"),
        ("rkllama rm 'x | sudo tee y' sudo", "hand"),
        ("rkllama serve --port 8081", "hand"),
        ("sudo rm /dev/rknpu", "script"),
        ("echo performance | sudo tee /sys/x", "script"),
        ("sudo journalctl -u rkllama", "hand"),
        ("/usr/bin/python3 -m pip install 'waitress<3.1'", "script"),
        ("uv pip install --python /usr/bin/python3 'waitress<3.1'", "script"),
        ("chmod 600 'unfinished", "hand"),
        ("", "hand"),
    ],
)
def test_what_becomes_of_a_line(line: str, kind: str) -> None:
    assert kind_of(line) == kind


def test_nothing_is_left_where_nothing_is_wrong() -> None:
    done, asked, said = repair([finding("sudo reboot", status="good"), finding()])
    assert (done, asked, said) == (Fixed((), (), ""), [], [])


def test_modes_are_set_and_a_second_time_there_is_nothing_to_do(home: Path, models: Path) -> None:
    history = home / "RKLLAMA" / "history"
    history.write_text("x")
    history.chmod(0o644)
    done, _, said = repair(wrong(check_secrets))
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert (done.done, done.failed, done.script) == ((f"chmod 600 {history}",), (), "")
    assert said == [f"Done: chmod 600 {history}"]
    assert repair(wrong(check_secrets))[0] == Fixed((), (), "")


def test_a_link_that_came_in_between_is_not_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.touch()
    victim.chmod(0o644)
    link.symlink_to(victim)
    done, _, said = repair([finding(f"chmod 600 {link}")])
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert done.failed == (f"chmod 600 {link}",)
    assert said[0].startswith(f"Failed: chmod 600 {link}: ")
    assert f"#   chmod 600 {link}\n" in done.script


def test_what_was_not_agreed_to_is_left_to_the_user() -> None:
    lines = (
        "rkllama runtime install 1.2.3",
        "rkllama pull user/repo",
        "rkllama runtime use 1.2.3 m",
    )
    done, asked, _ = repair([finding(*lines)])
    assert asked == [
        "Fetch librkllmrt 1.2.3, the NPU's runtime?",
        "Continue the download of user/repo?",
        "Use librkllmrt 1.2.3 for m?",
    ]
    assert done.done == ()
    assert [line for line in done.script.splitlines() if line.startswith("#   ")] == [
        f"#   {line}" for line in lines
    ]


def test_a_library_is_put_aside_once(tmp_path: Path) -> None:
    library, aside = tmp_path / "a b.so", tmp_path / "a b.so.unusable"
    library.write_text("x")
    line = f"mv '{library}' '{aside}'"
    assert repair([finding(line)], agree=True)[0].done == (line,)
    assert aside.read_text() == "x"
    library.write_text("y")
    assert repair([finding(line)], agree=True)[0].failed == (line,)
    assert aside.read_text() == "x"


def test_what_killed_processes_left_is_removed(models: Path) -> None:
    left = models / ".new-0123456789abcdef"
    left.touch()
    (models / "q").mkdir()
    inside = models / "q" / ".new-fedcba9876543210"
    inside.touch()
    repair([], models)
    assert not left.exists()
    assert not inside.exists()


# --- The script --------------------------------------------------------------------------------

EVIL = "x\n; touch EVIL\r\x1b[2J #"


def test_the_script() -> None:
    done, _, _ = repair(
        [
            finding(
                "sudo apt-get update",
                "sudo apt-get install -y libgomp1",
                found="libgomp is missing",
            ),
            finding("sudo apt-get update", "rkllama serve --port 8081", status="warning"),
        ]
    )
    assert done.script == (
        "#!/bin/sh\n"
        "# What `rkllama doctor --fix` leaves to you. Read it, then run it: sh FILE\n"
        "set -e\n"
        'command -v sudo >/dev/null 2>&1 || sudo() { "$@"; }\n'
        "\n"
        "# A thing: libgomp is missing\n"
        "# Cure it.\n"
        "sudo apt-get update\n"
        "sudo apt-get install -y libgomp1\n"
        "\n"
        "# Left for you to decide, so not run here:\n"
        "#   rkllama serve --port 8081\n"
    )


@pytest.mark.integration
def test_names_of_others_are_never_commands(tmp_path: Path) -> None:
    path = tmp_path / EVIL
    path.write_text("x")
    findings = [
        finding(f"sudo rm {shlex.quote(str(path))}", found=EVIL),
        finding(f"rkllama rm {shlex.quote(EVIL)}", found=EVIL),
        finding(f"rkllama rm {EVIL}", f"sudo rm '{EVIL}", found=EVIL),
    ]
    script = repair(findings)[0].script
    # A sudo of our own stands for the real one.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin" / "sudo").chmod(0o755)
    done = run(script, tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert not path.exists()
    assert not (tmp_path / "EVIL").exists()


def run(script: str, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh"], input=script, cwd=directory, env={**os.environ, **env}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.integration
def test_without_sudo_the_lines_are_run_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sh", "touch"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    script = repair([finding("sudo touch done")])[0].script
    assert run(script, tmp_path, PATH=str(tmp_path / "bin")).returncode == 0
    assert (tmp_path / "done").exists()


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck")
def test_scripts_for_all_boards_are_in_order(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = []
    for board in names():
        monkeypatch.setenv("RKLLAMA_SYSROOT", str(build_board(board, tmp_path)))
        put_models(board, models)
        told = examine(Subject(settings=load_settings()), BOARD)
        script = repair([entry.finding for entry in told], models)[0].script
        if script:
            scripts.append(tmp_path / f"{board}.sh")
            scripts[-1].write_text(script)
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(scripts) > 5


@pytest.mark.integration
def test_our_own_commands_are_run(
    home: Path, models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = "rkllama runtime use auto"
    done, asked, _ = repair([finding(line)], agree=True)
    assert (done.done, asked) == ((line,), ["Use librkllmrt auto?"])
    out, err = capfd.readouterr()
    assert (out, "All models try the release that fits" in err) == ("", True)
    done, _, said = repair([finding("rkllama runtime use 9.9.9")], agree=True)
    assert (done.failed, said[0].endswith("it ended with status 1")) == (
        ("rkllama runtime use 9.9.9",),
        True,
    )
