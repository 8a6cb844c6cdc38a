"""Write the files of the service where a package has them: below /usr/lib.

python3 packaging/write_units.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rkllama.systemd.units import SYSTEM_FILES, USER_FILES, render

PROGRAM = ("/usr/bin/rkllama",)


def main(folder: str) -> None:
    """Write each file to its place below `folder`."""
    for file in SYSTEM_FILES + USER_FILES:
        path = Path(folder) / file.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(file, PROGRAM), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
