"""axe-core on every view of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.page.accessibility import assert_accessible
from tests.page.looking import Look, show

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "page",
    [Look(360, "light"), Look(360, "dark", "fr"), Look(1440, "light", "fr"), Look(1440, "dark")],
    indirect=True,
    ids=str,
)
def test_nothing_serious_in_any_view(page: Page, axe: str) -> None:
    for view in ("chat", "models", "board"):
        show(page, view)
        assert_accessible(page, axe)
