"""One setting in the text of config.toml: all other lines stay as they are, or nothing is changed."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.commands.config.file import change_file, changed_text
from rkllama.config import parse_toml, read_config
from rkllama.errors import ConfigError
from tests.waiting import Task

TEXT = """\
# My board.

keep_alive = "30m"   # over lunch # really
origins = [
    "https://a.example.org",  # the page
    "https://b.example.org",
]  # both
"max_loaded" = 2

# The end.
"""


def change(name: str, value: str | None, text: str = TEXT) -> str:
    return changed_text(text, name, value, "config.toml")


def test_a_line_is_changed_and_its_comment_kept() -> None:
    assert change("keep_alive", "-1") == TEXT.replace('"30m"', "-1")
    assert change("max_loaded", "3") == TEXT.replace('"max_loaded" = 2', "max_loaded = 3")


def test_a_value_of_several_lines_becomes_one() -> None:
    before, _, rest = TEXT.partition("origins")
    after = rest.partition("]  # both\n")[2]
    assert change("origins", "[]") == f"{before}origins = []  # both\n{after}"


def test_a_line_is_removed_alone() -> None:
    assert change("keep_alive", None) == TEXT.replace(
        'keep_alive = "30m"   # over lunch # really\n', ""
    )
    assert change("threads", None) == TEXT


def test_a_new_line_stands_behind_the_last_one_that_is_set() -> None:
    line = '"max_loaded" = 2\n'
    assert change("threads", "4") == TEXT.replace(line, f"{line}threads = 4\n")
    assert change("threads", "4", "") == "threads = 4\n"
    assert change("threads", "4", "a = 1") == "a = 1\nthreads = 4\n"
    assert change("threads", "4", "# only this\n") == "# only this\nthreads = 4\n"


def test_what_looks_like_the_setting_is_not_taken_for_it() -> None:
    text = 'llama_server = """\nthreads = 1\n"""\n# threads = 2\n'
    assert change("threads", "4", text) == text.replace('1\n"""\n', '1\n"""\nthreads = 4\n')
    text = "lock = '#'  # threads\nthreads = 3 # '#'\n"
    assert change("threads", "4", text) == text.replace("3 #", "4 #")
    assert change("lock", "'x'", text) == text.replace("'#'  #", "'x'  #")


def test_tables_stay_behind_the_settings() -> None:
    assert change("threads", "4", "[other]\nthreads = 1\n") == "threads = 4\n[other]\nthreads = 1\n"


def test_line_ends_of_other_systems_are_kept() -> None:
    text = "# x\r\nthreads = 1\r\nlock = 'a' # b\r\n"
    assert change("threads", "4", text) == text.replace("1\r", "4\r")
    assert change("lock", "'c'", text) == text.replace("'a'", "'c'")
    assert change("max_queue", "4", text) == f"{text}max_queue = 4\r\n"


@pytest.mark.parametrize("text", ["threads = \n", "= 1\n", "threads = 1\nthreads = 2\n", '"x'])
def test_a_file_that_is_not_toml_is_not_changed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"threads cannot be changed in config\.toml") as failed:
        change("threads", "4", text)
    assert failed.value.hint == "Edit the file by hand."


def test_what_is_set_in_another_way_is_not_changed() -> None:
    with pytest.raises(ConfigError, match="threads cannot be changed"):
        change("threads", "4", "threads.big = 1\nthreads.small = 2\n")


_VALUES = st.one_of(
    st.integers(0, 99).map(str),
    st.sampled_from(['"a # b"', "'#'", "[1, 2]", "[\n  'x', # y\n]", '"""\nkey = 1\n"""', "true"]),
)
_LINES = st.one_of(
    st.sampled_from(["", "# comment", "   # name = 1", "\t"]),
    st.tuples(
        st.sampled_from("abcdef"), _VALUES, st.sampled_from(["", " # why", "  ## [x]", "\t"])
    ).map(lambda parts: f"{parts[0]} = {parts[1]}{parts[2]}"),
)


@given(st.lists(_LINES, max_size=8), st.sampled_from("abcdefg"), st.one_of(st.none(), _VALUES))
def test_nothing_else_changes_whatever_is_there(
    lines: list[str], name: str, value: str | None
) -> None:
    text = "".join(f"{line}\n" for line in lines)
    try:
        before = parse_toml(text)
    except ValueError:  # a name comes twice
        return
    changed = changed_text(text, name, value, "config.toml")
    expected = {key: old for key, old in before.items() if key != name}
    if value is not None:
        expected |= parse_toml(f"{name} = {value}")
    assert parse_toml(changed) == expected
    place = 0
    for line in lines:  # all others, in their order
        if not line.startswith(f"{name} ="):
            place = changed.index(f"{line}\n", place) + len(line) + 1


# --- The file ----------------------------------------------------------------------------------


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    assert change_file(str(path), "threads", "4")
    assert path.read_text() == "threads = 4\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not change_file(str(path), "threads", "4")
    assert [file.name for file in path.parent.iterdir()] == ["config.toml"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.write_text("threads = 1\n")
    kept.chmod(0o640)
    link = tmp_path / "config.toml"
    link.symlink_to(kept)
    assert change_file(str(link), "threads", "2")
    assert link.is_symlink()
    assert kept.read_text() == "threads = 2\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("threads = 1\n")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Exception, match="cannot be written: Permission denied"):
        change_file(str(path), "threads", "2")
    assert path.read_text() == "threads = 1\n"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["config.toml"]


def test_of_several_commands_at_a_time_each_has_its_effect(tmp_path: Path) -> None:
    path = str(tmp_path / "config.toml")
    names = [f"n{number}" for number in range(40)]
    tasks = [Task(partial(change_file, path, name, "1")) for name in names]
    for task in tasks:
        task.result()
    assert set(parse_toml(Path(path).read_text())) == set(names)


@pytest.mark.parametrize("kind", ["pipe", "directory", "huge", "deep", "latin"])
def test_what_is_no_configuration_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        texts = {
            "huge": b"# x\n" * (1 << 20),
            "deep": b"a = " + b"[" * 50_000,
            "latin": b"# \xff\n",
        }
        path.write_bytes(texts[kind])
        with pytest.raises(ConfigError, match="cannot be read"):
            read_config(str(path))
    with pytest.raises(ConfigError, match=r"cannot be (read|changed)"):
        Task(lambda: change_file(str(path), "host", '"x"')).result()
