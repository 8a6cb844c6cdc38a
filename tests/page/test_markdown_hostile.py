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
_LARGE, _HUGE = 42, 3
_MOST_NODES = 60_000
_DEEPEST = 60


def texts_of(size: str) -> list[str]:
    """Return answers of a size; of large ones one of each kind: `python -m benchmarks --page` shows all of
    them huge.
    """
    if size == "small":
        return list(small_answers(_SMALL, seed=17))
    if size == "large":
        return list(large_answers(40_000))
    return ["a" * LARGE, "word " * (LARGE // 5), "> " * (LARGE // 2)]


@pytest.mark.parametrize("size", ["small", "large", "huge"])
def test_hostile_answers_do_nothing(browser: Browser, tmp_path: Any, size: str) -> None:
    problems = Problems(HOST)
    page = open_markdown(browser, str(tmp_path), problems, Look())
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    texts = texts_of(size)
    assert len(texts) == {"small": _SMALL, "large": _LARGE, "huge": _HUGE}[size]
    faults = page.evaluate(
        "([texts, nodes, deep]) => faultsOf(texts, nodes, deep)", [texts, _MOST_NODES, _DEEPEST]
    )
    assert faults == []
    problems.assert_none(page.context)
    assert requests == []
    page.context.close()
