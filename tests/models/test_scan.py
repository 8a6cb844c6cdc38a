"""The models directory as it can be: folders, links, odd names, things that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkllama.errors import ConfigError, ModelsDirMissing
from rkllama.models.catalog import Watch
from rkllama.models.scan import Entry, Scan, scan
from tests.cost import calls
from tests.model_files import age, fill

Put = Callable[..., Path]


@pytest.fixture
def put(models: Path) -> Put:
    """Writes a file into the models directory."""

    def write(path: str, content: str = "x") -> Path:
        file = models / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    return write


def names(models: Path) -> list[str]:
    return [entry.name for entry in scan(str(models))]


# --- What counts -------------------------------------------------------------------------------


def test_files_and_folders(models: Path, put: Put) -> None:
    bare = put("Qwen2.5-0.5B.rkllm", "12345")
    put("tiny/TinyLlama-w8a8.rkllm")
    put("tiny/tokenizer_config.json")
    put("guide.GGUF")
    found = {entry.name: entry for entry in scan(str(models))}
    assert list(found) == ["guide", "Qwen2.5-0.5B", "tiny"]
    qwen = found["Qwen2.5-0.5B"]
    assert (qwen.file, qwen.path, qwen.size) == (bare.name, str(bare), 5)
    assert (qwen.format, qwen.folder, qwen.modelfile, qwen.parent) == ("rkllm", "", "", "")
    assert qwen.modified == bare.stat().st_mtime
    assert found["guide"].format == "gguf"
    assert (found["tiny"].folder, found["tiny"].file) == ("tiny", "TinyLlama-w8a8.rkllm")


@pytest.mark.parametrize(
    "path",
    [
        ".hidden.rkllm",
        ".rkllama/x.rkllm",
        "x/.hidden.rkllm",
        "x.rkllm.part",
        "x/x.rkllm.part",
        "x/vision.rknn",
        "mmproj-x-f16.gguf",
        "x/y/deep.rkllm",
        "notes.txt",
        "x/Modelfile.bak",
        "line\nbreak.rkllm",
        "tab\t/x.rkllm",
    ],
)
def test_what_is_no_model(models: Path, put: Put, path: str) -> None:
    put(path)
    assert names(models) == []


def test_a_folder_that_looks_like_a_file(models: Path, put: Put) -> None:
    put("coder.rkllm/coder-w8a8.rkllm")
    (models / "empty.rkllm").mkdir()
    os.mkfifo(models / "pipe.rkllm")
    assert names(models) == ["coder"]


def test_a_modelfile_belongs_to_the_models_beside_it(models: Path, put: Put) -> None:
    put("a/a.rkllm")
    modelfile = put("a/Modelfile", "SYSTEM hi\n")
    put("b.rkllm")
    assert [entry.modelfile for entry in scan(str(models))] == [str(modelfile), ""]


# --- Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["m/a.rkllm", "m/b.rkllm"], ["m/a", "m/b"]),
        (["m/a.rkllm", "m/a.gguf"], ["m/a.gguf", "m/a.rkllm"]),
        (["a.rkllm", "a.gguf"], ["a.gguf", "a.rkllm"]),
        (["a.rkllm", "a/x.rkllm"], ["a.rkllm", "a/x"]),
        (["A.rkllm", "a.rkllm"], ["A.rkllm", "a.rkllm"]),
        (["a.rkllm.rkllm", "a.rkllm", "a/x.gguf"], ["a.rkllm", "a.rkllm.rkllm", "a/x"]),
        (["x/m.rkllm", "y/m.rkllm"], ["x", "y"]),
        (["x.gguf/m.gguf", "x.gguf/n.gguf"], ["x.gguf/m", "x.gguf/n"]),
    ],
)
def test_names_are_as_short_as_they_can_be(
    models: Path, put: Put, paths: list[str], expected: list[str]
) -> None:
    for path in paths:
        put(path)
    assert names(models) == expected


_WORD = st.sampled_from(["a", "A", "b", "a.rkllm", "b.gguf", "a.b", "ä"])
_FILE = st.tuples(_WORD, st.sampled_from([".rkllm", ".gguf", ".RKLLM"])).map("".join)
_PATH = st.one_of(_FILE, st.tuples(_WORD, _FILE).map("/".join))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(_PATH, max_size=12))
def test_names_are_unique_whatever_lies_there(tmp_path: Path, paths: list[str]) -> None:
    directory = tmp_path / f"m{time.monotonic_ns()}"
    directory.mkdir()
    written = set()
    for path in paths:
        file = directory / path
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text("x")
            written.add(str(file))
        except OSError:
            continue  # a file of that name is there already
    entries = scan(str(directory))
    assert {entry.path for entry in entries} == written
    assert len({entry.name for entry in entries}) == len(entries)


# --- Aliases -----------------------------------------------------------------------------------


def test_an_alias_is_its_model_under_another_name(models: Path, put: Put) -> None:
    model = put("qwen/Qwen3-0.6B.rkllm", "123")
    modelfile = put("poet/Modelfile", '# mine\nfrom Qwen3-0.6b.RKLLM\nSYSTEM "rhyme"\n')
    put("old/Modelfile", 'FROM="qwen"\n')
    found = {entry.name: entry for entry in scan(str(models))}
    assert list(found) == ["old", "poet", "qwen"]
    poet = found["poet"]
    assert (poet.path, poet.size, poet.parent) == (str(model), 3, "qwen")
    assert (poet.folder, poet.modelfile) == ("poet", str(modelfile))
    assert poet.modified == modelfile.stat().st_mtime


@pytest.mark.parametrize("source", ["a", "a:latest", "./a", '"a"', "A.rkllm", "a/m.rkllm"])
def test_what_an_alias_may_be_made_from(models: Path, put: Put, source: str) -> None:
    put("a/m.rkllm" if "/m" in source else "a.rkllm")
    put("b/Modelfile", f"FROM {source}\n")
    assert [(e.name, e.parent) for e in scan(str(models))] == [("a", ""), ("b", "a")]


def test_aliases_of_aliases_and_circles(models: Path, put: Put) -> None:
    put("m.rkllm")
    put("a/Modelfile", "FROM m")
    put("b/Modelfile", "FROM A")
    put("x/Modelfile", "FROM y")
    put("y/Modelfile", "FROM x")
    put("self/Modelfile", "FROM self")
    found = {entry.name: entry for entry in Scan(str(models)).entries()}
    assert (found["b"].parent, found["b"].file) == ("a", "m.rkllm")
    assert {name for name, entry in found.items() if not entry.format} == {"x", "y", "self"}
    assert names(models) == ["a", "b", "m"]


def test_an_alias_of_the_same_name_as_a_file(models: Path, put: Put) -> None:
    put("a.rkllm")
    put("a/Modelfile", "FROM a")
    assert [(e.name, e.parent) for e in scan(str(models))] == [("a", "a.rkllm"), ("a.rkllm", "")]


@pytest.mark.parametrize(
    "text", ["", "SYSTEM hi", 'SYSTEM """\nFROM m\n"""', "FROM nowhere", "FROM ../m", "FROM /etc"]
)
def test_an_alias_of_nothing_is_not_listed(models: Path, put: Put, text: str) -> None:
    put("m.rkllm")
    put("broken/Modelfile", text)
    assert names(models) == ["m"]
    broken = next(e for e in Scan(str(models)).entries() if e.name == "broken")
    assert (broken.format, broken.path) == ("", "")


# --- Links and faults --------------------------------------------------------------------------


def passed_over(models: Path) -> list[str]:
    look = Scan(str(models))
    look.entries()
    return sorted(look.passed_over)
    texts: list[str] = []
    scan(str(models), texts)
    return sorted(texts)


def test_links_of_the_owner_are_followed_wherever_they_lead(
    models: Path, put: Put, tmp_path: Path
) -> None:
    cache = tmp_path / "hub" / "models--user--repo"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "0123").write_text("12345")
    (snapshot / "x.rkllm").symlink_to("../../blobs/0123")  # as huggingface_hub lays it out
    (snapshot / "Modelfile").write_text("SYSTEM hello")
    put("m.rkllm")
    (models / "link.rkllm").symlink_to(snapshot / "x.rkllm")
    (models / "folder").symlink_to(snapshot)
    (models / "sub").mkdir()
    (models / "sub" / "y.rkllm").symlink_to(snapshot / "x.rkllm")
    (models / "alias").mkdir()
    (tmp_path / "Modelfile").write_text("FROM m")
    (models / "alias" / "Modelfile").symlink_to(tmp_path / "Modelfile")
    assert names(models) == ["alias", "folder", "link", "m", "sub"]
    assert [entry.size for entry in scan(str(models))][1:3] == [5, 5]
    assert passed_over(models) == []


def test_what_is_passed_over_is_told(models: Path, put: Put, tmp_path: Path) -> None:
    put("m.rkllm")
    (tmp_path / "empty").mkdir()
    (models / "empty").symlink_to(tmp_path / "empty")
    (models / "up").symlink_to(models.parent)
    (models / "itself").symlink_to(models)
    (models / "broken.rkllm").symlink_to(models / "nowhere.rkllm")
    (models / "circle.rkllm").symlink_to(models / "circle.rkllm")
    (models / ".hidden.rkllm").symlink_to(models / "nowhere.rkllm")
    (models / "new\nline.rkllm").write_text("x")
    os.mkfifo(models / "pipe.rkllm")
    assert names(models) == ["m"]
    assert passed_over(models) == [
        "'new\\nline.rkllm': its name has characters that cannot be printed",
        f"broken.rkllm: it is a link to {models}/nowhere.rkllm, which is not there",
        f"circle.rkllm: it is a link to {models}/circle.rkllm, which is not there",
        "empty: it is a link to a folder without a model",
        f"itself: it is a link to {models}, in which it lies itself",
        "pipe.rkllm: it is not a file",
        f"up: it is a link to {models.parent}, in which it lies itself",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_link_of_somebody_else_is_not_followed(models: Path, put: Put, tmp_path: Path) -> None:
    put("m.rkllm")
    (tmp_path / "secret.rkllm").write_text("s")
    (models / "link.rkllm").symlink_to(tmp_path / "secret.rkllm")
    os.lchown(models / "link.rkllm", 12345, -1)
    assert names(models) == ["m"]
    assert passed_over(models) == [
        "link.rkllm: it is a link that neither root nor the owner of the models directory made"
    ]
    os.chown(models, 12345, -1)
    assert names(models) == ["link", "m"]


def test_links_within_the_directory_count(models: Path, put: Put) -> None:
    put("m/m.rkllm")
    (models / "n.rkllm").symlink_to(models / "m" / "m.rkllm")
    (models / "o").symlink_to(models / "m")
    assert names(models) == ["m", "n", "o"]


def test_the_directory_itself_may_be_a_link(models: Path, put: Put, tmp_path: Path) -> None:
    put("m.rkllm")
    link = tmp_path / "link"
    link.symlink_to(models)
    assert [entry.path for entry in scan(str(link))] == [str(models / "m.rkllm")]


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelsDirMissing) as caught:
        scan(str(tmp_path / "nowhere"))
    assert caught.value.path == str(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelsDirMissing):
        scan(str(tmp_path / "file"))


def test_names_that_are_no_utf8(models: Path, put: Put) -> None:
    put("m.rkllm")
    raw = os.fsencode(models)
    (models / os.fsdecode(b"b\xff.rkllm")).write_text("x")
    os.mkdir(raw + b"/d\xfe")
    (models / os.fsdecode(b"d\xfe") / "x.rkllm").write_text("x")
    put("sub/ok.rkllm")
    (models / "sub" / os.fsdecode(b"\xf0\x28.rkllm")).write_text("x")
    assert names(models) == ["m", "sub"]


class _Scandir:
    """os.scandir that fails for some paths: root, under which tests may run, can read everything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Callable[[str], OSError | None]):
        self._real, self._error = os.scandir, error
        monkeypatch.setattr(os, "scandir", self)

    def __call__(self, path: str) -> object:
        if (error := self._error(path)) is not None:
            raise error
        return self._real(path)


def test_an_unreadable_folder_hides_only_itself(
    models: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a/a.rkllm")
    put("b/b.rkllm")
    denied = PermissionError(13, "Permission denied")
    _Scandir(monkeypatch, lambda path: denied if path.endswith("/a") else None)
    assert names(models) == ["b"]


def test_an_unreadable_directory_says_so(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Scandir(monkeypatch, lambda _: PermissionError(13, "Permission denied"))
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        scan(str(models))


def test_files_that_vanish_meanwhile(
    models: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a/a.rkllm")
    put("b.rkllm")
    real = os.scandir

    def scandir(path: str) -> object:
        items = list(real(path))
        for item in items:
            if item.is_file():
                os.unlink(item.path)

        class Listed:
            def __enter__(self) -> list[os.DirEntry[str]]:
                return items

            def __exit__(self, *_: object) -> None:
                return None

        return Listed()

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(models) == []


# --- Speed and start-up ------------------------------------------------------------------------


def test_of_500_models_each_is_looked_at_once(models: Path) -> None:
    fill(models)
    assert len(scan(str(models))) == 500
    made = calls(lambda: scan(str(models)))
    assert made["open"] == 0
    assert made["stat"] == 500
    assert made["scandir"] == 501
    assert made["lstat"] < 20, "paths are resolved once, not for each model"
    assert made.total() < 100 * 500


@pytest.mark.integration
def test_the_import_is_lean() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import rkllama.models.scan, rkllama.models.labels, rkllama.models.gguf;"
        "print(*sorted({'dataclasses', 'inspect', 'pathlib', 'json'} & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- Scanning again ----------------------------------------------------------------------------


def test_a_quiet_directory_is_not_scanned_again(
    models: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (put("a.rkllm"), put("b/b.rkllm"), put("c/Modelfile", "FROM a"), models / "b"):
        age(path)
    age(models / "c")
    age(models)
    looking = Watch(str(models))
    first = looking.entries()
    assert [entry.name for entry in first] == ["a", "b", "c"]
    _Scandir(monkeypatch, lambda path: AssertionError(path))  # type: ignore[arg-type, return-value]
    assert looking.entries() is first
    assert looking.is_current(first[0])


def _add_bare(models: Path) -> None:
    (models / "new.rkllm").write_text("x")


def _add_beside(models: Path) -> None:
    (models / "b" / "other.rkllm").write_text("x")


def _remove(models: Path) -> None:
    (models / "a.rkllm").unlink()


def _grow_in_place(models: Path) -> None:
    with (models / "a.rkllm").open("a") as stream:
        stream.write("more")


def _grow_in_folder(models: Path) -> None:
    with (models / "b" / "b.rkllm").open("a") as stream:
        stream.write("more")


def _rename_folder(models: Path) -> None:
    (models / "b").rename(models / "z")


def _edit_alias(models: Path) -> None:
    (models / "c" / "Modelfile").write_text("FROM b    ")


def _remove_folder(models: Path) -> None:
    (models / "b" / "b.rkllm").unlink()
    (models / "b").rmdir()


def _fix_link(models: Path) -> None:
    (models / "deep" / "er").mkdir(parents=True)
    (models / "deep" / "er" / "x.rkllm").write_text("x")


@pytest.mark.parametrize(
    "change",
    [
        _add_bare,
        _add_beside,
        _remove,
        _grow_in_place,
        _grow_in_folder,
        _rename_folder,
        _edit_alias,
        _remove_folder,
        _fix_link,
    ],
)
def test_every_change_is_noticed(models: Path, put: Put, change: Callable[[Path], None]) -> None:
    put("a.rkllm")
    put("b/b.rkllm")
    put("c/Modelfile", "FROM a")
    (models / "link.rkllm").symlink_to(models / "deep" / "er" / "x.rkllm")
    for path in (models / "a.rkllm", models / "b" / "b.rkllm", models / "c" / "Modelfile"):
        age(path)
    for path in (models / "b", models / "c", models):
        age(path)
    looking = Watch(str(models))
    before = looking.entries()
    assert looking.entries() is before
    change(models)
    after = looking.entries()
    assert _plain(after) == _plain(Scan(str(models)).entries())
    assert _plain(after) != _plain(before)


def _plain(entries: tuple[Entry, ...] | list[Entry]) -> list[Entry]:
    """Without the folders' times, which a scan for a list does not look at."""
    return [entry._replace(folder_mtime_ns=0) for entry in entries]


def test_a_directory_that_has_just_changed_is_not_trusted(models: Path, put: Put) -> None:
    put("a.rkllm")
    looking = Watch(str(models))
    assert len(looking.entries()) == 1
    stamp = models.stat().st_mtime_ns
    put("b.rkllm")
    os.utime(models, ns=(stamp, stamp))  # as a file system with coarse times would have it
    assert len(looking.entries()) == 2


def test_is_current_sees_what_concerns_one_model(models: Path, put: Put) -> None:
    put("a/a.rkllm")
    put("b/b.rkllm")
    for path in (models / "a" / "a.rkllm", models / "a", models / "b", models):
        age(path)
    looking = Watch(str(models))
    a, b = looking.entries()
    assert looking.is_current(a)
    put("b/c.rkllm")
    assert looking.is_current(a)
    assert not looking.is_current(b)
    put("new.rkllm")
    assert not looking.is_current(a)


def test_a_directory_that_goes_and_comes_back(models: Path, put: Put) -> None:
    put("a.rkllm")
    looking = Watch(str(models))
    assert len(looking.entries()) == 1
    (models / "a.rkllm").unlink()
    models.rmdir()
    with pytest.raises(ModelsDirMissing):
        looking.entries()
    put("b.rkllm")
    assert [entry.name for entry in looking.entries()] == ["b"]
