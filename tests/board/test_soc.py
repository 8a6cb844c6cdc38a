"""What is known of a SoC by its name."""

from __future__ import annotations

import pytest

from rkllama.board.soc import cpus, npu_cores, runs_llm


@pytest.mark.parametrize(
    ("soc", "runs", "cores"),
    [
        ("RK3588", True, 3),
        ("RK3588S", True, 3),
        ("RK3588J", True, 3),
        ("RK3582", True, 2),
        ("RK3576", True, 2),
        ("RK3562", True, 1),
        ("RV1126B", True, 1),
        ("RV1126", False, 1),
        ("RK3566", False, 1),
        ("RK3399PRO", False, 1),
        (None, False, 1),
    ],
)
def test_which_run_language_models_and_on_how_many_cores(
    soc: str | None, runs: bool, cores: int
) -> None:
    assert (runs_llm(soc), npu_cores(soc)) == (runs, cores)


def test_a_variant_uses_the_cpus_of_its_soc() -> None:
    assert cpus("RK3588J", set(range(8))) == cpus("RK3588", set(range(8))) == (0xF0, 4)
