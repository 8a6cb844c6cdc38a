"""Write Typer's completions for bash, zsh and fish as a package installs them.

python tools/completions.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from typer.completion import get_completion_script

PROGRAM = "rkllama"

# zsh runs the file as the function `_rkllama` when it is first needed, and wants completions then, too.
ZSH = """
_rkllama_completion "$@"
"""

FILES = {"bash": ("rkllama", ""), "zsh": ("_rkllama", ZSH), "fish": ("rkllama.fish", "")}
"""Each shell's file name, and what follows Typer's script in it."""


def main(folder: str) -> None:
    """Write FOLDER/bash/rkllama, FOLDER/zsh/_rkllama and FOLDER/fish/rkllama.fish."""
    for shell, (name, addition) in FILES.items():
        script = get_completion_script(
            prog_name=PROGRAM, complete_var="_RKLLAMA_COMPLETE", shell=shell
        )
        path = Path(folder) / shell / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{script}\n{addition}".rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
