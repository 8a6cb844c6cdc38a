"""What changes the models directory: copies, creations, removal, and what never gets out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rkllama.errors import (
    AmbiguousName,
    InvalidRequest,
    ModelNotFound,
    RKLLamaError,
)
from rkllama.models import authoring
from rkllama.models.authoring import WritableStore
from rkllama.models.modelfile import ModelfileError
from tests.fuzzing import examples
from tests.models.conftest import Put, tree

# --- Attacks -----------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *("..", ".", "/", "\\", "~", "%2e%2e", "%2f", "", "\0", "\n", " ", "\ud800", "é", "?", "*"),
        *(
            "m",
            "secret",
            "outside",
            "link",
            "Modelfile",
            ".rkllama",
            "hf",
            "C:",
            ".rkllm",
            ":latest",
        ),
    ]
)
_NAMES = st.one_of(st.text(max_size=30), st.lists(_PIECES, max_size=8).map("".join))


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory among files that must survive every name."""
    around = tmp_path_factory.mktemp("fortress")
    models = around / "models"
    models.mkdir()
    (models / "notes.txt").write_text("mine")
    (models / "sub").mkdir()
    (models / "sub" / "thesis.doc").write_text("mine")
    (around / "secret.rkllm").write_text("s")
    (around / "Modelfile").write_text("FROM m")
    (models / "link").symlink_to(around)
    (models / "link.rkllm").symlink_to(around / "nowhere.rkllm")
    return around


@pytest.mark.integration
@settings(max_examples=examples(3))
@given(_NAMES)
@example("")
@example(".")
@example("/")
@example("..")
@example("../secret.rkllm")
@example("link/secret.rkllm")
@example("link.rkllm")
@example("sub/../../secret.rkllm")
@example("%2e%2e%2fsecret.rkllm")
@example("..\\secret.rkllm")
@example("m\0")
@example("x" * 10_000)
@example("../" * 3000)
@example(".rkllama")
@example("sub")
@example("notes.txt")
def test_no_name_reaches_what_is_no_model(fortress: Path, name: str) -> None:
    before = tree(fortress)
    store = WritableStore(str(fortress / "models"))
    with pytest.raises((ModelNotFound, AmbiguousName)) as caught:
        store.remove(name)
    assert len(str(caught.value)) < 1000
    for refused in (store.resolve, store.details, lambda n: store.copy(n, "copied")):
        with pytest.raises((ModelNotFound, AmbiguousName)):
            refused(name)
    assert tree(fortress) == before
    assert len(str(fortress / "models" / "notes.txt")) > 0


@settings(max_examples=examples(2), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_NAMES)
@example("../evil")
@example("/tmp/evil")
@example(".hidden")
@example("a/b")
@example("x" * 200)
@example("link")
@example("sub")
@example("notes.txt")
@example("m:1b:latest")
def test_nothing_is_made_outside(fortress: Path, name: str) -> None:
    models = fortress / "models"
    (models / "m.rkllm").write_text("x")
    store = WritableStore(str(models))
    before = tree(fortress)
    try:
        for made in (lambda: store.copy("m", name), lambda: store.create(name, "FROM m")):
            try:
                made()
            except (InvalidRequest, ModelNotFound):
                assert tree(fortress) == before
            else:
                new = tree(fortress) - before
                folder = new.pop() if len(new) == 1 else min(new, key=len, default="")
                assert folder.startswith("models/")
                assert folder.count("/") == 1
                store.remove(name)
                assert tree(fortress) == before
    finally:
        (models / "m.rkllm").unlink()


def test_from_cannot_leave_the_directory(store: WritableStore, put: Put, tmp_path: Path) -> None:
    put("m.rkllm")
    (tmp_path / "secret.rkllm").write_text("s")
    for source in (
        "../secret.rkllm",
        str(tmp_path / "secret.rkllm"),
        "/etc/passwd",
        "~",
        ".",
        "..",
    ):
        with pytest.raises(ModelNotFound):
            store.create("new", f"FROM {source}")
    assert [info.name for info in store.list()] == ["m"]


# --- Copies and creations ----------------------------------------------------------------------


def test_a_copy_is_the_same_model(store: WritableStore, put: Put, models: Path) -> None:
    put("Qwen3-0.6B.rkllm")
    store.copy("qwen3", "mine")
    mine = store.resolve("mine")
    assert (mine.info.path, mine.parent) == (str(models / "Qwen3-0.6B.rkllm"), "Qwen3-0.6B")
    assert mine.info.family == "qwen3"
    assert [info.name for info in store.list()] == ["mine", "Qwen3-0.6B"]
    assert (models / "mine" / "Modelfile").read_text() == "FROM Qwen3-0.6B\n"


def test_a_copy_of_an_alias_keeps_what_it_sets(store: WritableStore, put: Put) -> None:
    put("m.rkllm")
    store.create("poet", "FROM m\nSYSTEM rhyme\nPARAMETER top_k 3")
    store.copy("poet", "bard")
    bard = store.resolve("bard")
    assert (bard.system, bard.sampling.top_k, bard.parent) == ("rhyme", 3, "m")
    store.remove("poet")
    assert store.resolve("bard").system == "rhyme"


def test_create_inherits_and_overrides(store: WritableStore, put: Put) -> None:
    put("m/m.rkllm")
    put("m/Modelfile", "SYSTEM base\nPARAMETER top_k 1\nPARAMETER stop a\nPARAMETER stop b")
    info = store.create("one", "FROM m:latest\nPARAMETER stop c\nMESSAGE user hi")
    assert (info.name, info.file) == ("one", "m.rkllm")
    store.create("two:v1", "from ONE\nsystem other")
    two = store.resolve("two:v1")
    assert two.info.name == "two-v1"
    assert (two.system, two.sampling.top_k, two.stop, two.parent) == ("other", 1, ("c",), "one")
    assert [message.text for message in two.messages] == ["hi"]
    assert store.details("two-v1").modelfile.startswith("FROM one\n")


def test_names_of_ollamas_library_are_names(store: WritableStore, put: Put) -> None:
    put("m.rkllm")
    assert store.create("library/one", "FROM library/m:latest").name == "one"
    store.copy("registry.ollama.ai/library/one", "library/two:v1")
    assert store.resolve("library/two:v1").info.name == "two-v1"
    store.remove("library/two:v1")
    assert [info.name for info in store.list()] == ["m", "one"]


def test_create_again_replaces_the_alias(store: WritableStore, put: Put) -> None:
    put("m.rkllm")
    store.create("x", "FROM m\nSYSTEM one\nPARAMETER top_k 1")
    store.create("X", "FROM m\nSYSTEM two")
    assert (store.resolve("x").system, store.resolve("x").sampling.top_k) == ("two", None)
    store.create("x", "FROM x\nPARAMETER top_k 5")
    assert [info.name for info in store.list()] == ["m", "x"]
    assert store.resolve("x").sampling.top_k == 5


def test_nothing_is_made_from_itself(store: WritableStore, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.create("t1", "FROM m\nSYSTEM one")
    store.create("t2", "FROM t1")
    store.create("t3", "FROM t2")
    before = {path: path.read_text() for path in models.rglob("Modelfile")}
    for make in (
        lambda: store.create("t1", "FROM t3"),
        lambda: store.create("T2:latest", "FROM t3\nSYSTEM two"),
        lambda: store.copy("t2", "t1"),
    ):
        with pytest.raises(InvalidRequest, match=r"is made from '.*' itself"):
            make()
    assert {path: path.read_text() for path in models.rglob("Modelfile")} == before
    assert store.resolve("t3").system == "one"


def test_what_is_made_can_be_found_however_long_its_chain(store: WritableStore, put: Put) -> None:
    put("m.rkllm")
    names = ["m", *(f"t{number}" for number in range(1, 10))]
    for name, source in zip(names[1:9], names, strict=False):
        assert store.create(name, f"FROM {source}").file == "m.rkllm"
    with pytest.raises(InvalidRequest, match="'t8' is made from 8 others already"):
        store.create("t9", "FROM t8")
    store.create("t8", "FROM t8\nSYSTEM last")
    assert {info.name for info in store.list()} == set(names[:9])


def test_create_under_the_model_s_own_name(store: WritableStore, put: Put, models: Path) -> None:
    put("m/m.rkllm")
    put("bare.rkllm")
    store.create("m", "FROM m\nSYSTEM mine")
    assert store.resolve("m").system == "mine"
    assert (models / "m" / "Modelfile").read_text() == "FROM m.rkllm\nSYSTEM mine\n"
    with pytest.raises(InvalidRequest, match="no folder of its own"):
        store.create("bare", "FROM bare\nSYSTEM x")


@pytest.mark.parametrize("source", ["./m.rkllm", "m.rkllm", "{models}/m.rkllm", "M"])
def test_ways_to_write_from(store: WritableStore, put: Put, models: Path, source: str) -> None:
    put("m.rkllm")
    store.create("new", f"FROM {source.format(models=models)}")
    assert store.resolve("new").parent == "m"


def test_what_could_not_be_read_again_is_not_written(
    store: WritableStore, put: Put, models: Path
) -> None:
    put("m.rkllm")
    with pytest.raises(ModelfileError, match="more than 1048576 bytes"):
        store.create("french", "FROM m\nSYSTEM " + "é" * 600_000)
    assert not (models / "french").exists()


def test_what_create_refuses(store: WritableStore, put: Put) -> None:
    put("m.rkllm")
    put("taken/taken.rkllm")
    put("folder/notes.txt")
    with pytest.raises(InvalidRequest, match="no FROM"):
        store.create("x", "SYSTEM hi")
    with pytest.raises(ModelfileError, match="line 2"):
        store.create("x", "FROM m\nFOO")
    with pytest.raises(ModelNotFound):
        store.create("x", "FROM nothing")
    for name in ("taken", "TAKEN", "folder"):
        with pytest.raises(InvalidRequest, match="already exists"):
            store.create(name, "FROM m")
    for name in ("", " ", ".x", "a/b", "a\\b", "-x", "ä", "x" * 129, "a b", "..", "\0"):
        with pytest.raises(InvalidRequest, match="is not a valid model name"):
            store.copy("m", name)
    with pytest.raises(InvalidRequest):
        store.copy("m", "m")
    assert {info.name for info in store.list()} == {"m", "taken"}


def test_a_disk_that_refuses_leaves_nothing(
    store: WritableStore, put: Put, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m.rkllm")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RKLLamaError, match="No space left"):
        store.copy("m", "x")
    assert not [path for path in models.rglob("*") if path.is_file() and path.name != "m.rkllm"]


# --- Removal -----------------------------------------------------------------------------------


def test_a_bare_file_goes_with_its_own(store: WritableStore, put: Put, models: Path) -> None:
    for path in ("m.rkllm", "m.rkllm.part", "m.rkllm.part.json", "m.tokenizer_config.json"):
        put(path)
    for path in ("m.txt", "m2.rkllm", "tokenizer_config.json"):
        put(path)
    assert store.remove("m.rkllm").name == "m"
    assert tree(models) == {"m.txt", "m2.rkllm", "tokenizer_config.json"}


def test_a_pulled_folder_goes_whole(store: WritableStore, put: Put, models: Path) -> None:
    for name in ("m.rkllm", "tokenizer_config.json", "config.json", ".pull.json", "Modelfile"):
        put(f"m/{name}")
    store.remove("M:latest")
    assert tree(models) == set()
    assert models.is_dir()


def test_the_user_s_files_stay(store: WritableStore, put: Put, models: Path) -> None:
    put("m/m.rkllm")
    put("m/config.json", "{}")
    put("m/thesis.doc")
    put("m/deep/er.txt")
    store.remove("m")
    assert tree(models) == {"m", "m/thesis.doc", "m/deep", "m/deep/er.txt"}


def test_one_of_several_leaves_what_they_share(
    store: WritableStore, put: Put, models: Path
) -> None:
    put("m/a.rkllm")
    put("m/b.rkllm")
    put("m/chat_template.jinja", "{{ messages }}")
    put("m/a.config.json", "{}")
    store.remove("m/a")
    assert tree(models) == {"m", "m/b.rkllm", "m/chat_template.jinja"}
    assert store.remove("m").file == "b.rkllm"
    assert tree(models) == set()


def test_an_alias_goes_alone(store: WritableStore, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.copy("m", "x")
    put("y/Modelfile", "FROM m")
    put("y/notes.txt")
    removed = store.remove("x")
    assert (removed.name, removed.path) == ("x", str(models / "x" / "Modelfile"))
    store.remove("y")
    assert tree(models) == {"m.rkllm", "y", "y/notes.txt"}


def test_what_aliases_are_made_from_stays(store: WritableStore, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.copy("m", "x")
    store.create("y", "FROM x")
    with pytest.raises(InvalidRequest, match="'m' is still needed by x") as caught:
        store.remove("m")
    assert caught.value.hint == "Remove x first."
    with pytest.raises(InvalidRequest, match="'x' is still needed by y"):
        store.removable("x")
    for name in ("y", "x", "m"):
        assert store.removable(name).name == name
        store.remove(name)
    assert tree(models) == set()


def test_an_alias_whose_model_is_gone(store: WritableStore, put: Put, models: Path) -> None:
    put("x/Modelfile", "FROM gone\nSYSTEM hi")
    assert store.list() == []
    with pytest.raises(ModelNotFound, match="'gone' not found"):
        store.resolve("x")
    assert store.remove("x").name == "x"
    assert tree(models) == set()


def test_a_modelfile_that_names_nothing_can_be_removed(
    store: WritableStore, put: Put, models: Path
) -> None:
    put("x/Modelfile", "SYSTEM hi")
    assert store.remove("x").path == str(models / "x" / "Modelfile")
    assert tree(models) == set()


@pytest.mark.usefixtures("zoo")
def test_removal_takes_no_beginnings(store: WritableStore, models: Path) -> None:
    before = tree(models)
    for name in ("qwen", "t", "gemma/", "qwen2.5:7b", "qwen2.5:1.5b", "gemma:w4a16"):
        with pytest.raises(ModelNotFound):
            store.remove(name)
    with pytest.raises(AmbiguousName):
        store.remove("gemma")
    for name, full in (
        ("llam", "llama"),
        ("gemma/", "gemma/gemma-2b-w4a16 or gemma/gemma-2b-w8a8"),
    ):
        with pytest.raises(ModelNotFound) as caught:
            store.remove(name)
        assert caught.value.hint == f"Deleting takes the full name: {full}."
    assert tree(models) == before


def test_links_are_removed_and_not_followed(store: WritableStore, put: Put, models: Path) -> None:
    put("real/m.rkllm")
    (models / "link.rkllm").symlink_to(models / "real" / "m.rkllm")
    (models / "folder").symlink_to(models / "real")
    store.remove("link")
    store.remove("folder")
    assert tree(models) == {"real", "real/m.rkllm"}


@pytest.fixture
def disk(models: Path, put: Put, tmp_path: Path) -> Path:
    """Another disk, to which the models directory has links, whose files no name may touch."""
    disk = tmp_path / "disk"
    for path in ("one/one.rkllm", "one/Modelfile", "two/a.rkllm", "two/b.rkllm", "alias/Modelfile"):
        (disk / path).parent.mkdir(parents=True, exist_ok=True)
        (disk / path).write_text("FROM m" if path.endswith("Modelfile") else "x")
    put("m.rkllm")
    for name in ("one", "two", "alias"):
        (models / name).symlink_to(disk / name)
    (models / "file.rkllm").symlink_to(disk / "one" / "one.rkllm")
    return disk


def test_nothing_is_deleted_behind_a_link(store: WritableStore, models: Path, disk: Path) -> None:
    before = tree(disk)
    assert [info.name for info in store.list()] == ["alias", "file", "m", "one", "two/a", "two/b"]
    for name in ("file", "one", "alias"):
        store.remove(name)
    with pytest.raises(InvalidRequest, match=r"behind the link .*/two, with other models"):
        store.remove("two/a")
    assert tree(models) == {"m.rkllm", "two"}
    assert tree(disk) == before


def test_nothing_is_written_behind_a_link(store: WritableStore, disk: Path) -> None:
    before = {path: (disk / path).stat().st_mtime_ns for path in tree(disk)}
    for name, source in (("one", "one"), ("alias", "m")):
        with pytest.raises(InvalidRequest, match="nothing is written behind links"):
            store.create(name, f"FROM {source}\nSYSTEM evil")
    with pytest.raises(InvalidRequest, match="nothing is written behind links"):
        store.copy("m", "alias")
    with pytest.raises(InvalidRequest, match="nothing is written behind links"):
        store.new_name("alias")
    assert {path: (disk / path).stat().st_mtime_ns for path in tree(disk)} == before


@pytest.mark.usefixtures("disk")
def test_an_adapter_may_lie_behind_a_link_where_models_do(
    store: WritableStore, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk" / "one" / "deeper").mkdir()
    (tmp_path / "disk" / "one" / "deeper" / "lora.rkllm").write_text("x")
    (models / "up").symlink_to(tmp_path)
    store.create("tuned", "FROM m\nADAPTER one/one.rkllm")
    assert store.resolve("tuned").lora == str(tmp_path / "disk" / "one" / "one.rkllm")
    for adapter in ("one/deeper/lora.rkllm", "up/disk/one/one.rkllm", "../disk/one/one.rkllm"):
        with pytest.raises(InvalidRequest, match="is not in the models directory"):
            store.create("other", f"FROM m\nADAPTER {adapter}")


def test_a_name_that_is_passed_over_is_told_why(store: WritableStore, models: Path) -> None:
    (models / "m.rkllm").symlink_to(models / "nowhere.rkllm")
    for operation in (store.resolve, store.remove):
        with pytest.raises(ModelNotFound) as caught:
            operation("m")
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("m.rkllm: it is a link to ")


def test_a_disk_that_refuses_says_so(
    store: WritableStore, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m.rkllm")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RKLLamaError, match="cannot be removed: Permission denied"):
        store.remove("m")


# --- Once more ---------------------------------------------------------------------------------


def test_a_model_made_of_a_file_gives_way_to_another_of_its_name(
    store: WritableStore, put: Put, models: Path
) -> None:
    put("m.rkllm")
    put("mine/own.rkllm")
    put("mine/.created")
    put("mine/Modelfile", "FROM own.rkllm")
    assert store.new_name("Mine") == ("mine", str(models / "mine" / "own.rkllm"))
    store.copy("mine", "short")
    with pytest.raises(InvalidRequest, match="'mine' already exists"):
        store.create("mine", "FROM short")  # its own file
    with pytest.raises(InvalidRequest, match="'mine' already exists"):
        store.copy("m", "mine")
    store.create("mine", "FROM mine\nSYSTEM one")
    assert store.resolve("mine").system == "one"
    store.create("mine", "FROM m\nSYSTEM two")
    assert (store.resolve("mine").system, store.resolve("mine").parent) == ("two", "m")
    assert tree(models) == {"m.rkllm", "mine", "mine/Modelfile", "short", "short/Modelfile"}


@pytest.mark.parametrize("beside", [".pull.json", "Modelfile"])
def test_what_was_not_made_by_create_is_never_replaced(
    beside: str, store: WritableStore, put: Put, models: Path
) -> None:
    put("m.rkllm")
    put("mine/own.rkllm")
    put(f"mine/{beside}", "{}")
    before = tree(models)
    for replace in (store.new_name, lambda name: store.create(name, "FROM m")):
        with pytest.raises(InvalidRequest, match="'mine' already exists"):
            replace("mine")
    assert tree(models) == before


# --- Adapters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["missing.bin", "../lora.bin", "/etc/hostname"])
def test_an_adapter_that_is_not_there_makes_no_other_model(
    adapter: str, store: WritableStore, put: Put, models: Path
) -> None:
    put("m/m.rkllm")
    (models.parent / "lora.bin").write_text("x")
    before = tree(models)
    with pytest.raises(
        InvalidRequest, match=r"ADAPTER .* is not in the models directory"
    ) as caught:
        store.create("tuned", f"FROM m\nADAPTER {adapter}")
    assert caught.value.hint is not None
    assert str(models) in caught.value.hint
    assert tree(models) == before


@pytest.mark.parametrize("name", ["tuned", "m"])
def test_an_adapter_is_named_from_the_models_directory(
    name: str, store: WritableStore, put: Put
) -> None:
    put("m/m.rkllm")
    lora = put("m/lora.bin")
    store.create(name, "FROM m\nADAPTER m/lora.bin")
    assert store.resolve(name).lora == str(lora)


@pytest.mark.parametrize("name", ["tuned", "m"])
def test_an_adapter_that_was_uploaded_lies_with_its_model_and_goes_with_it(
    name: str, store: WritableStore, put: Put, models: Path
) -> None:
    put("m/m.rkllm")
    upload = put(".rkllama/blobs/abc", "weights")
    store.create(name, "FROM m\nADAPTER ./x.rkllm", ("x.rkllm", str(upload)))
    lora = models / name / "adapter" / "x.rkllm"
    assert store.resolve(name).lora == str(lora)
    assert lora.read_text() == "weights"
    assert not upload.exists()
    assert {info.name for info in store.list()} == {"m", name}
    store.remove(name)
    assert not (models / name).exists()


def test_an_adapter_of_a_model_that_is_not_made_stays_an_upload(
    store: WritableStore, put: Put, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m/m.rkllm")
    upload = put(".rkllama/blobs/abc", "weights")
    monkeypatch.setattr(authoring, "SIZE_LIMIT", 10)
    with pytest.raises(InvalidRequest):
        store.create("tuned", "FROM m\nSYSTEM word word", ("x.rkllm", str(upload)))
    assert upload.read_text() == "weights"
    assert not (models / "tuned").exists()


@pytest.mark.parametrize(
    ("modelfile", "adapter"),
    [
        ("tuned/Modelfile", "tuned/x_lora.rkllm"),
        ("m/Modelfile", "m/x.rkllm"),
        ("tuned/Modelfile", "x.rkllm"),
        ("tuned/Modelfile", "other/x.rkllm"),
    ],
)
def test_a_file_that_is_an_adapter_is_no_model(
    modelfile: str, adapter: str, store: WritableStore, put: Put, models: Path
) -> None:
    put("m/m.rkllm")
    put(adapter)
    where = os.path.relpath(models / adapter, (models / modelfile).parent)
    put(modelfile, f"FROM m\nADAPTER {where}\n")
    name = modelfile.partition("/")[0]
    assert {info.name for info in store.list()} == {"m", name}
    assert store.resolve(name).lora == str(models / adapter)
