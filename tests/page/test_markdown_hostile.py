"""Hostile answers run nothing, fetch nothing, and make a bounded number of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.page.hostile import LARGE, large_answers, small_answers
from tests.page.looking import Look, Problems
from tests.page.markdown_page import HOST, open_markdown

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration

_SMALL = 255
_LARGE = 45
_MOST_NODES = 60_000
_DEEPEST = 60


def large_texts() -> list[str]:
    """Return one of each kind. `python -m benchmarks --page` shows all at their full size."""
    return [*large_answers(40_000), "a" * LARGE, "word " * (LARGE // 5), "> " * (LARGE // 2)]


@pytest.mark.parametrize("size", ["small", "large"])
def test_hostile_answers_do_nothing(browser: Browser, tmp_path: Any, size: str) -> None:
    problems = Problems(HOST)
    page = open_markdown(browser, str(tmp_path), problems, Look())
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    texts = list(small_answers(_SMALL, seed=17)) if size == "small" else large_texts()
    assert len(texts) == (_SMALL if size == "small" else _LARGE)
    faults = page.evaluate(
        "([texts, nodes, deep]) => faultsOf(texts, nodes, deep)", [texts, _MOST_NODES, _DEEPEST]
    )
    assert faults == []
    problems.assert_none(page.context)
    assert requests == []
    page.context.close()
