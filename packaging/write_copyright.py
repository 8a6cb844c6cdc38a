"""Print debian/copyright for the Python packages in a folder, from what their wheels say of themselves.

python3 packaging/write_copyright.py FOLDER
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: RKLLama
Source: https://github.com/notpunhnox/rkllama
Comment:
 This package carries the Python packages that it needs, unchanged, as they are
 published. Their licences are listed here; each text is in the folder of the
 same name below /opt/rkllama/lib/python3/site-packages.
"""
OWN = """
Files: *
Copyright: 2026 The RKLLama authors
License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
"""


def line(package: Distribution) -> str:
    """The folder of a package's licence and which that is."""
    about = package.metadata
    licence = about.get("License-Expression") or _classified(about.get_all("Classifier", []))
    if not licence:
        licence = (about.get("License") or "").partition("\n")[0]
    if not licence:
        raise SystemExit(f"{package.name} does not tell its licence")
    return f" {package.name.replace('-', '_').lower()}-{package.version}.dist-info: {licence}"


def _classified(classifiers: list[str]) -> str:
    parts = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::")]
    return ", ".join(parts)


def main(folder: str) -> None:
    """Print the whole file."""
    lines = sorted(line(package) for package in distributions(path=[folder]))
    sys.stdout.write(f"{HEAD} .\n" + "\n".join(lines) + f"\n{OWN}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
