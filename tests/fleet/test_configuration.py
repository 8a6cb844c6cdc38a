"""Where requests go, what HAProxy is told, and which files are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.errors import RKLLamaError
from rkllama.fleet.balancer import fingerprint_of
from rkllama.fleet.boards import Board, Fleet, parse_boards
from rkllama.fleet.files import Written, expected_configuration, reload_haproxy, update_files
from rkllama.fleet.haproxy import configuration, maps
from rkllama.fleet.reports import BoardModel, Report
from rkllama.fleet.routes import EVERYWHERE, Routes, plan_routes, spellings
from rkllama.systemd.steps import is_edited

THREE = Fleet(boards=parse_boards(["rk1=10.0.0.1", "rk2=10.0.0.2", "rk3=10.0.0.3"]))


def report(board: Board, *models: str, **values: object) -> Report:
    entries = tuple(BoardModel(name=name) for name in models)
    return Report(board=board, version="1", models=entries, tells_ready=True, **values)  # type: ignore[arg-type]


def reports(*models: Sequence[str]) -> list[Report]:
    return [report(board, *own) for board, own in zip(THREE.boards, models, strict=True)]


def update(directory: Path, told: Sequence[Report], *, force: bool = False) -> Written:
    return update_files(str(directory), THREE, told, force=force)


# --- Routes ------------------------------------------------------------------------------------


def test_a_model_goes_to_the_boards_that_have_it() -> None:
    names = {"a": ["Qwen3:4B", "all"], "b": ["Qwen3:4B", "all"], "c": ["other", "all"]}
    routes = plan_routes(["a", "b", "c"], names)
    boards = {group.name: group.boards for group in routes.groups}
    assert boards[EVERYWHERE] == ("a", "b", "c")
    assert boards[routes.models["qwen3:4b"]] == ("a", "b")
    assert boards[routes.models["qwen3-4b"]] == ("a", "b")
    assert boards[routes.models["other:latest"]] == ("c",)
    assert routes.models["all"] == EVERYWHERE
    assert not routes.left_out


def test_boards_with_the_same_models_are_one_group() -> None:
    routes = plan_routes(["a", "b"], {"a": ["m", "n"], "b": ["n", "m"]})
    assert [group.name for group in routes.groups] == [EVERYWHERE]


def test_too_many_groups_are_told_and_go_anywhere() -> None:
    boards = [f"b{number}" for number in range(40)]
    routes = plan_routes(boards, {board: [f"only-{board}"] for board in boards})
    assert len(routes.groups) <= 33
    assert routes.left_out
    assert not set(routes.left_out) & set(routes.models)


@given(st.lists(st.text(max_size=20), max_size=8))
def test_no_name_of_a_model_writes_a_line_of_its_own(names: list[str]) -> None:
    routes = plan_routes(["rk1", "rk2", "rk3"], {"rk1": names})
    groups = {group.name for group in routes.groups}
    for line in maps(THREE, routes)["models.map"].split("\n")[:-1]:
        key, group = line.split(" ")
        assert group in groups
        assert key.isprintable()
        assert not key.startswith("#")
    plain = plan_routes(["rk1", "rk2", "rk3"], {"rk1": ["m"]} if routes.models else {})
    assert without_digest(routes) == without_digest(plain)


def without_digest(routes: Routes) -> list[str]:
    lines = configuration(THREE, routes, "/d").splitlines()
    return [line for line in lines if "/configuration" not in line]


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "#a", "a\tb", "x" * 300, "a\u2028b", "a\x00", ":latest", ".gguf"]
)
def test_a_name_that_no_line_can_hold_has_no_spelling(name: str) -> None:
    assert spellings(name) == set()


# --- The configuration -------------------------------------------------------------------------


def test_three_boards_take_sixty_lines(tmp_path: Path) -> None:
    update(tmp_path, reports(["m"], ["m"], ["m"]))
    assert len((tmp_path / "haproxy.cfg").read_text().splitlines()) < 60
    routes = plan_routes(["rk1", "rk2", "rk3"], {})
    text = configuration(THREE, routes, "/etc/haproxy", root=True)
    assert "    user haproxy\n" in text
    assert len(text.splitlines()) < 60  # and the line that says who wrote it


def test_every_line_fits_what_haproxy_reads(tmp_path: Path) -> None:
    boards = tuple(Board(name=f"rk{n}", host=f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1000))
    text = configuration(Fleet(boards=boards), plan_routes([b.name for b in boards], {}), "/d")
    assert max(map(len, text.splitlines())) < 2048
    assert text.count("    server rk") == 2000


def test_a_certificate_makes_it_https() -> None:
    fleet = Fleet(boards=THREE.boards, certificate="/etc/ssl/my fleet.pem")
    text = configuration(fleet, plan_routes(["rk1"], {}), "/d")
    assert "bind 127.0.0.1:8090 ssl crt '/etc/ssl/my fleet.pem' alpn h2,http/1.1\n" in text


def test_old_releases_are_asked_whether_they_live(tmp_path: Path) -> None:
    old = [Report(board=board, version="0.0.9") for board in THREE.boards]
    update(tmp_path, old)
    assert "httpchk GET /health\n" in (tmp_path / "haproxy.cfg").read_text()
    update(tmp_path, reports([], [], []))
    assert "httpchk GET /ready\n" in (tmp_path / "haproxy.cfg").read_text()


# --- Files -------------------------------------------------------------------------------------


def test_what_is_as_it_should_be_is_not_written(tmp_path: Path) -> None:
    assert update(tmp_path, reports(["m"], ["m"], ["m"])).changed
    before = os.stat(tmp_path / "haproxy.cfg").st_mtime_ns
    assert not update(tmp_path, reports(["m"], ["m"], ["m"])).changed
    assert os.stat(tmp_path / "haproxy.cfg").st_mtime_ns == before


def test_a_board_that_is_down_keeps_its_models(tmp_path: Path) -> None:
    update(tmp_path, reports(["m"], ["m"], ["m", "only"]))
    down = Report(board=THREE.boards[2], error="Connection refused")
    written = update(tmp_path, [*reports(["m"], ["m"], [])[:2], down])
    assert not written.changed
    assert "only" in written.routes.models


def test_new_models_are_another_configuration_to_run(tmp_path: Path) -> None:
    update(tmp_path, reports(["m"], ["m"], ["m", "only"]))
    first = fingerprint_of((tmp_path / "haproxy.cfg").read_text())
    update(tmp_path, reports(["m"], ["m"], ["m", "only", "too"]))
    assert fingerprint_of((tmp_path / "haproxy.cfg").read_text()) not in (None, first)


def test_an_edited_configuration_stays_unless_forced(tmp_path: Path) -> None:
    update(tmp_path, reports(["m"], ["m"], ["m"]))
    path = tmp_path / "haproxy.cfg"
    edited = path.read_text().replace("timeout queue 1h", "timeout queue 2h")
    path.write_text(edited)
    written = update(tmp_path, reports(["m"], ["m"], ["n"]))
    assert written.kept
    assert path.read_text() == edited
    assert "n boards-" in (tmp_path / "models.map").read_text()
    written = update(tmp_path, reports(["m"], ["m"], ["n"]), force=True)
    assert written.replaced
    assert (tmp_path / "haproxy.cfg.old").read_text() == edited
    assert not is_edited(path.read_bytes())


def test_a_configuration_of_somebody_else_is_an_edited_one(tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg").write_text("global\n")
    assert update(tmp_path, reports([], [], [])).kept
    assert (tmp_path / "haproxy.cfg").read_text() == "global\n"


@pytest.mark.parametrize("content", [b"[", b"[1]", b'{"rk1": 5}', b"\xff", b'{"rk1": [1, "m"]}'])
def test_damaged_notes_on_models_are_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "models.json").write_bytes(content)
    update(tmp_path, [Report(board=board, error="down") for board in THREE.boards])
    assert (tmp_path / "haproxy.cfg").exists()


def test_what_is_expected_is_what_would_be_written(tmp_path: Path) -> None:
    told = reports(["m"], ["n"], ["m"])
    update(tmp_path, told)
    text = (tmp_path / "haproxy.cfg").read_text()
    assert text.endswith(expected_configuration(str(tmp_path), THREE, told))


def test_only_what_the_service_reads_is_reloaded(tmp_path: Path) -> None:
    with pytest.raises(RKLLamaError, match=r"/etc/haproxy/haproxy\.cfg") as raised:
        reload_haproxy(str(tmp_path / "haproxy.cfg"))
    assert "--directory /etc/haproxy" in str(raised.value.hint)
