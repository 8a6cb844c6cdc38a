"""What names tell, and which file is chosen for what people type: on tables that were checked by eye."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.errors import InvalidRequest
from rkllama.hub.choice import choose, choose_in_repository
from rkllama.hub.offers import Board, Offer, offers_of
from rkllama.hub.reading import read_names, read_words, same_size
from rkllama.hub.wanted import parse_wanted
from rkllama.models.reference import Reference
from rkllama.models.vision.choice import find_encoder
from tests.cases import cases
from tests.hub.names import FILES, REPOSITORIES

DATA = Path(__file__).parents[1] / "data"
BOARDS = {
    "RK3588": Board(soc="RK3588", memory=16 << 30, release="1.3.0"),
    "RK3576": Board(soc="RK3576", memory=8 << 30, release="1.3.0"),
    "RK3562": Board(soc="RK3562", memory=4 << 30, release="1.3.0"),
    "RV1126B": Board(soc="RV1126B", memory=4 << 30, release="1.3.0"),
    "CPU": Board(memory=16 << 30),
}
OFFERS = tuple(
    offer
    for repo, (downloads, files) in REPOSITORIES.items()
    for offer in offers_of(repo, files, downloads=downloads)
)


def summary(file: str, repo: str) -> str:
    """A reading in one line, without what it leaves open."""
    reading = read_names(file, repo)
    parts = (
        *(reading.brand, reading.version, reading.size),
        *sorted(reading.words),
        *(f"~{word}" for word in sorted(reading.rest)),
        *(reading.variant, reading.quantization, reading.platform, reading.context_length),
        reading.toolkit and f"v{reading.toolkit}",
        None if reading.opt_level is None else f"opt{reading.opt_level}",
        None if reading.hybrid_ratio is None else f"ratio{reading.hybrid_ratio}",
        reading.date,
        reading.disputed_size and f"not {reading.disputed_size}",
    )
    return " ".join(str(part) for part in parts if part is not None)


def verdict(name: str, board: str) -> str:
    choice = choose(parse_wanted(name), OFFERS, BOARDS[board])
    if choice.chosen is not None:
        return choice.chosen.reference
    return "?" if choice.usable else "-"


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


READINGS = dict(line.split(" = ") for line in lines("hub-readings.txt"))


def expected_choices() -> list[tuple[str, str, str]]:
    rows, name = [], ""
    for line in lines("hub-choices.txt"):
        if not line.startswith(" "):
            name = line
            continue
        board, _, expected = line.strip().partition(": ")
        rows.append((name, board, expected))
    return rows


CHOICES = expected_choices()
NAMES = tuple(dict.fromkeys(name for name, _, _ in CHOICES))


# --- The tables --------------------------------------------------------------------------------


def test_the_tables_are_large_enough() -> None:
    assert len(READINGS) >= 120
    assert {(repo, file) for repo, file in FILES} == {
        ("/".join(key.split("/")[:2]), "/".join(key.split("/")[2:])) for key in READINGS
    }
    assert len(NAMES) >= 40
    assert {board for _, board, _ in CHOICES} == set(BOARDS)


@cases(("repo", "file"), FILES)
def test_reading(repo: str, file: str) -> None:
    assert summary(file, repo) == READINGS[f"{repo}/{file}"]


@cases(("name", "board", "expected"), CHOICES)
def test_choice(name: str, board: str, expected: str) -> None:
    assert verdict(name, board) == expected


@pytest.mark.parametrize("board", BOARDS)
def test_no_file_is_for_another_board(board: str) -> None:
    """Whatever is typed: every choice is of the board's format, and names its platform."""
    names = [*NAMES, *(offer.reading.label.replace(" ", "-") for offer in OFFERS)]
    chosen = 0
    for name in names:
        choice = choose(parse_wanted(name), OFFERS, BOARDS[board])
        if choice.chosen is not None:
            chosen += 1
            assert choice.chosen.format == BOARDS[board].format
            assert BOARDS[board].soc is None or choice.chosen.reading.platform == board.lower()
    assert chosen


# --- One by one --------------------------------------------------------------------------------


def offer(file: str, repo: str = "user/repo", **values: object) -> Offer:
    return next(iter(offers_of(repo, [file], **values)))  # type: ignore[arg-type]


def chosen(name: str, *offers: Offer, board: Board = BOARDS["RK3588"]) -> str | None:
    choice = choose(parse_wanted(name), offers, board)
    return choice.chosen.file if choice.chosen else None


def test_the_rk3588s_takes_what_is_made_for_the_rk3588() -> None:
    board = Board(soc="RK3588S", memory=8 << 30, release="1.2.3")
    assert chosen("qwen3:4b", offer("Qwen3-4B-w8a8-rk3588.rkllm"), board=board)


def test_a_toolkit_newer_than_every_runtime_is_no_choice() -> None:
    new = offer("Qwen3-4B-w8a8-rk3588-v1.3.0.rkllm")
    old = offer("Qwen3-4B-w8a8-rk3588-v1.2.3.rkllm")
    board = Board(soc="RK3588", release="1.2.3")
    assert chosen("qwen3:4b", new, old, board=board) == old.file
    choice = choose(parse_wanted("qwen3:4b"), [new], board)
    assert not choice.usable
    assert "toolkit 1.3.0, newer than the runtime 1.2.3" in choice.reason


def test_what_does_not_fit_the_memory_is_no_choice() -> None:
    small = Board(soc="RK3576", memory=5 << 30, release="1.3.0")
    w8, w4 = offer("Qwen3-4B-w8a8-rk3576.rkllm"), offer("Qwen3-4B-w4a16-rk3576.rkllm")
    assert chosen("qwen3:4b", w8, w4, board=small) == w4.file
    assert chosen("qwen3:4b", w8, w4, board=BOARDS["RK3576"]) == w8.file
    huge = next(iter(offers_of("u/r", ["Qwen3-4B-w4a16-rk3576.rkllm"])))
    assert "needs" in choose(parse_wanted("qwen3:4b"), [w8], small).reason
    assert huge.guessed_size() == 2_650_000_000


def test_no_w4_on_the_rk3588() -> None:
    assert chosen("qwen3:4b", offer("Qwen3-4B-w4a16-rk3588.rkllm")) is None


def test_a_repository_says_what_it_is_but_the_board_still_counts() -> None:
    files = ["a-w8a8_g128-rk3588.rkllm", "a-w8a8-rk3588.rkllm", "a-w8a8-rk3576.rkllm"]
    wanted = parse_wanted("hf.co/user/strange-name")
    found = choose_in_repository(wanted, offers_of("user/strange-name", files), BOARDS["RK3588"])
    assert found.chosen
    assert found.chosen.file == files[1]
    wanted = parse_wanted("hf.co/user/strange-name:w8a8_g128")
    found = choose_in_repository(wanted, offers_of("user/strange-name", files), BOARDS["RK3588"])
    assert found.chosen
    assert found.chosen.file == files[0]
    found = choose_in_repository(wanted, offers_of("user/strange-name", files), BOARDS["RK3562"])
    assert found.chosen is None
    assert not found.usable


def test_adapters_and_parts_are_no_models() -> None:
    files = [
        "a_lora.rkllm",
        "a-00001-of-00002.gguf",
        "mmproj-a.gguf",
        ".rkllm",
        "a.rknn",
        "a.rkllm",
    ]
    assert [one.file for one in offers_of("u/r", files)] == ["a.rkllm"]


@pytest.mark.parametrize(
    ("files", "encoder"),
    [
        (["m_rk3588.rkllm", "m_vision_rk3588.rknn"], "m_vision_rk3588.rknn"),
        (["m_rk3588.rkllm", "a.rknn", "b_vision_rk3588.rknn"], "b_vision_rk3588.rknn"),
        (["m_rk3588.rkllm", "v_vision_rk3576.rknn"], None),
        (
            ["m_rk3588.rkllm", "v_vision_rk3576.rknn", "v_vision_rk3588.rknn"],
            "v_vision_rk3588.rknn",
        ),
        (["m_rk3588.rkllm", "a_vision_448_rk3588.rknn", "a_vision_672_rk3588.rknn"], None),
        (["x/m_rk3588.rkllm", "x/vision.rknn", "y/vision.rknn"], "x/vision.rknn"),
        (["m_rk3588.rkllm"], None),
        (["m.gguf", "mmproj-m.gguf"], "mmproj-m.gguf"),
    ],
)
def test_encoder(files: list[str], encoder: str | None) -> None:
    assert find_encoder(files[0], files, "rk3588") == encoder


# --- What is typed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repo", "file", "name"),
    [
        ("u/r", "u/r", None, None),
        ("hf/u/r/f.rkllm", "u/r", "f.rkllm", None),
        ("u/r/f.rkllm/qwen3:4b", "u/r", "f.rkllm", "qwen3:4b"),
        ("hf/u/r/a/f.rkllm/mine", "u/r", "a/f.rkllm", "mine"),
        ("hf.co/u/r:w8a8_g128", "u/r", None, None),
        ("https://huggingface.co/u/r", "u/r", None, None),
        ("https://huggingface.co/u/r/blob/main/f.rkllm", "u/r", "f.rkllm", None),
        ("j/m.rkllm", "j/m.rkllm", None, None),
        ("j/m.rkllm/m.rkllm", "j/m.rkllm", "m.rkllm", None),
    ],
)
def test_references(text: str, repo: str, file: str | None, name: str | None) -> None:
    wanted = parse_wanted(text)
    assert isinstance(wanted.reference, Reference)
    assert (wanted.reference.repo, wanted.reference.file, wanted.name) == (repo, file, name)


@pytest.mark.parametrize(
    "text", ["qwen3:4b", "library/qwen3:4b", "https://ollama.com/library/qwen3:4b", " qwen3:4b "]
)
def test_short_names(text: str) -> None:
    wanted = parse_wanted(text)
    assert (wanted.reference, wanted.name, wanted.reading.size) == (None, "qwen3:4b", "4B")


def test_latest_is_no_part_of_a_name() -> None:
    assert parse_wanted("gemma3:latest").name == "gemma3"


@pytest.mark.parametrize("text", ["", ":", "a b", "qwen3:", "a:b:c", "../x", "ä", "u/r/f.rkllm/.."])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_wanted(text)


def test_sizes() -> None:
    assert same_size("0.5B", "500M")
    assert same_size("30B", "30B-A3B")
    assert not same_size("30B-A3B", "30B-A5B")
    assert not same_size("E2B", "2B")
    assert not same_size("1.7B", "1.8B")


@given(st.text(max_size=400), st.none() | st.text(max_size=100))
def test_any_text_can_be_read(file: str, repo: str | None) -> None:
    read_names(file, repo)
    read_words(file)


def test_a_long_name_takes_no_long_time() -> None:
    for part in ("w8a8_g", "1_", "-1.1", "qwen3", "rk3588", "v1.1.1", "opt-", "deepseek-r"):
        read_words(part * 20_000)
        read_names(part * 20_000, part * 20_000)
