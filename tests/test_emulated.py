"""The binding on ARM: our own code in a Python of that machine, on an emulated processor.

EMULATED_ROOTS names the folder that `.ci/emulated-roots` makes; where it is set, nothing is skipped.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rkllama.rkllm import abi
from rkllama.rkllm.runtime import sampling_values
from tests.emulated.binding import CONTEXT, LIMIT, SAMPLING, layout
from tests.virtual_npu import VERSIONS, directive, library, write_model
from tests.virtual_npu.build import header

ROOT = Path(__file__).parents[1]
MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "rkllm-abi.json").read_text()
)["versions"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        "EMULATED_ROOTS" not in os.environ,
        reason="EMULATED_ROOTS is not set: CONTRIBUTING.md says how to get a Python for ARM",
    ),
]


class Machine(NamedTuple):
    """A machine to emulate: Debian's and the compiler's name of it, and the emulator with a processor."""

    debian: str
    target: str
    emulator: tuple[str, ...]
    bits: int


# The processors of Rockchip's SoCs; the one that qemu takes by itself signs pointers, ten times slower.
MACHINES = [
    Machine("arm64", "aarch64-linux-gnu", ("qemu-aarch64", "-cpu", "cortex-a76"), 64),
    Machine("armhf", "arm-linux-gnueabihf", ("qemu-arm", "-cpu", "cortex-a7"), 32),
]
on_each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.debian)


@on_each_machine
def test_the_machines_compiler_makes_the_measured_layouts(machine: Machine, tmp_path: Path) -> None:
    model = "lp64" if machine.bits == 64 else "ilp32"
    files = [tmp_path / f"{release}.c" for release in MEASURED]
    for file in files:
        file.write_text("\n".join(checked_header(file.stem, MEASURED[file.stem]["structs"][model])))
    command = [f"{machine.target}-gcc", "-std=gnu11", "-fsyntax-only", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def checked_header(release: str, structs: dict[str, Any]) -> list[str]:
    """C lines that compile only where the structs of `release` are laid out as in `structs`."""
    lines = [header(release)]
    for struct, expected in structs.items():
        lines.append(f"_Static_assert(sizeof({struct}) == {expected['size']}, {struct!r});")
        for name, offset, size, _ in expected["fields"]:
            place = f"offsetof({struct}, {name}) == {offset}"
            room = f"sizeof((({struct} *)0)->{name}) == {size}"
            lines.append(f"_Static_assert({place} && {room}, {f'{struct}.{name}'!r});")
    return [line.replace("'", '"') for line in lines]


WORDS = "Grüße, 你好 🦙"


@on_each_machine
def test_the_binding_knows_and_drives_every_release(machine: Machine, tmp_path: Path) -> None:
    job = {
        "libraries": [library(version, target=machine.target) for version in VERSIONS],
        "model": write_model(tmp_path / "modèle.rkllm", embd_size=8, tokens=3),
        "embd_size": 8,
        "prompts": {
            "words": "say " + directive(reply=WORDS, split=1),
            "sampling": "tell " + directive(mode="params"),
            "long": "count " + directive(tokens=LIMIT + 100),
        },
        "endless": "go on " + directive(tokens=1 << 20, token_us=1000),
    }
    report = run_emulated(machine, job, tmp_path)
    assert report["machine"].startswith(machine.target.partition("-")[0])
    assert report["bits"] == machine.bits
    for version, found in zip(VERSIONS, report["libraries"], strict=True):
        expected = layout(version, wide=machine.bits == 64)
        assert found["found"] == [version, version]
        assert found["layout"] == expected, version
        assert found["written"] == expected["RKLLMParam"][0], version
        assert found["passes_as"] == compatible(version), version
        check_answers(found)


def run_emulated(machine: Machine, job: dict[str, Any], directory: Path) -> Any:
    """What tests.emulated.binding reports of `job` in the Python of `machine`."""
    roots = Path(os.environ["EMULATED_ROOTS"])
    root = roots / machine.debian
    python = next(root.glob("usr/bin/python3.*"), None)
    assert python, f"there is no Python in {root}: .ci/emulated-roots puts one there"
    job_file, report, log = (directory / name for name in ("job.json", "report.json", "log"))
    job_file.write_text(json.dumps(job))
    python_options = ["-X", "faulthandler", "-X", f"pycache_prefix={roots / 'pycache'}"]
    command = [*machine.emulator, "-L", str(root), str(python), *python_options]
    command += ["-m", "tests.emulated.binding", str(job_file), str(report)]
    with log.open("wb") as output:
        done = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=300, check=False
        )
    assert done.returncode == 0, f"{done.returncode}: {log.read_text(errors='replace')}"
    return json.loads(report.read_text())


def compatible(version: str) -> list[str]:
    """The releases that a library of `version` may call itself: same layout, all their functions."""
    functions = set(abi.header(version).functions)
    return [
        release
        for release in abi.RELEASES
        if release[:3] == version[:3] and functions.issuperset(abi.header(release).functions)
    ]


def check_answers(found: dict[str, Any]) -> None:
    """Whether text, numbers, pointers and calls from another thread went there and back unharmed."""
    answers = found["answers"]
    assert answers["words"][:2] == [WORDS, "stop"]
    params, wanted = json.loads(answers["sampling"][0]), sampling_values(SAMPLING)
    assert {name: params[name] for name in wanted} == wanted
    assert params["max_context_len"] == CONTEXT
    assert answers["long"][1:] == ["length", LIMIT]
    assert found["aborted"] == "cancelled"
    assert len(found["vector"]) == 8
    assert math.isclose(sum(value * value for value in found["vector"]), 1, abs_tol=1e-3)
    assert len(found["pictured"].split()) == 3
