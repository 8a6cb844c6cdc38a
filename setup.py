"""Tells who has too old a Python what is needed, and how to get it; all else is in pyproject.toml.

It is understood by Python 3.7, and so is what is written here.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(
        "\nRKLLama needs Python 3.10 or newer, and this is Python {}.{}.\n"
        "Where the system has none, uv brings one of its own:\n\n"
        "    python3 -m pip install --user uv\n"
        "    python3 -m uv venv --seed --python 3.12 .venv\n"
        "    .venv/bin/pip install .\n".format(*sys.version_info)
    )

from setuptools import setup

setup()
