"""axe-core, which finds what keeps people from using a page."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_PACKAGE = "axe-core@4"
_SECONDS = 60
_RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ['violations'] });
  return found.violations.map(({ id, impact, help, nodes }) => ({
    id, impact, help, nodes: nodes.slice(0, 5).map((node) => node.html.slice(0, 200)),
  }));
}"""


def fetch_axe(folder: Path) -> str:
    """Return axe's script, which npm puts into `folder` for all processes of a run; skips the test where that
    cannot be.
    """
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = folder / "node_modules" / "axe-core" / "axe.min.js"
        if not script.exists():
            _install(folder)
    return script.read_text()


def _install(folder: Path) -> None:
    command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit"]
    try:
        done = subprocess.run(
            [*command, "--no-fund", "--fetch-retries=0", _PACKAGE],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except FileNotFoundError:
        pytest.skip("npm is not installed")
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode:
        pytest.skip(f"npm has no axe-core for us: {done.stderr.strip()[-200:]}")


def assert_accessible(page: Page, axe: str) -> None:
    """Fail where axe finds something serious or critical in what the page shows now."""
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not grave, json.dumps(grave, indent=1, ensure_ascii=False)
