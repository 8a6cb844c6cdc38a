"""Which release of librkllmrt to install for a model."""

from __future__ import annotations

import pytest

from rkllama.rkllm.releases import wanted_release


@pytest.mark.parametrize(
    ("toolkit", "soc", "tried", "expected"),
    [
        ("1.2.1", "RK3588", [], "1.2.3"),
        ("1.2.1", "RK3576", ["1.2.3"], "1.2.2"),
        # The older ones refuse the model, so that which may die there is the only one.
        ("1.3.0", "RK3588", ["1.2.3"], "1.3.0"),
        ("1.3.0", "RK3588", ["1.3.0"], "1.2.3"),
        (None, "RK3588", [], "1.2.3"),
        (None, "RK3576", [], "1.3.0"),
    ],
)
def test_the_release_to_install(
    toolkit: str | None, soc: str, tried: list[str], expected: str
) -> None:
    assert wanted_release(toolkit, soc, "aarch64", tried) == expected
