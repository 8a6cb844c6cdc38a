"""What llama.cpp's server is asked about its slots, and what its answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from rkllama.backends.base import reuses_cache
from rkllama.backends.llama_http import Slots, listener
from rkllama.types import SamplingParams


class Server:
    """Notes what it is asked, and gives one answer."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, object]] = []

    def __call__(self, path: str, body: object) -> dict[str, Any]:
        self.asked.append((path, body))
        return self.answer


def test_a_slot_is_written_by_the_name_of_its_file() -> None:
    server = Server(id_slot=2, n_saved=140, n_written=575_828)
    assert Slots(server).save("/home/u/states/0f.part", 2) == 140
    assert server.asked == [("/slots/2?action=save", {"filename": "0f.part"})]


def test_an_empty_slot_leaves_nothing() -> None:
    assert Slots(Server(n_saved=0)).save("x.part", 0) is None


@pytest.mark.parametrize(("restored", "taken"), [(140, True), (139, False), (0, False)])
def test_a_file_is_taken_if_all_its_tokens_are_there(restored: int, taken: bool) -> None:
    server = Server(n_restored=restored)
    assert Slots(server).restore("/states/0f.kv", 140, 1) is taken
    assert server.asked == [("/slots/1?action=restore", {"filename": "0f.kv"})]


def test_why_a_file_is_refused_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    slots = Slots(Server(error={"message": "no space", "type": "invalid_request_error"}))
    assert not slots.restore("/states/0f.kv", 140, 0)
    assert slots.save("/states/0f.part", 0) is None
    assert capsys.readouterr().err.splitlines() == [
        "restore of /states/0f.kv: no space",
        "save of /states/0f.part: no space",
    ]


def test_a_listener_that_is_gone_is_an_error_in_the_answer() -> None:
    assert "error" in listener("http://127.0.0.1:1", "key").ask("/slots/0?action=save", {})


@pytest.mark.parametrize(
    ("sampling", "reuses"),
    [
        (SamplingParams(), True),
        (SamplingParams(seed=1), False),
        (SamplingParams(seed=1, temperature=0.0), True),
    ],
)
def test_only_a_seed_forbids_to_reuse(sampling: SamplingParams, reuses: bool) -> None:
    assert reuses_cache(sampling) is reuses
