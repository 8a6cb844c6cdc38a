"""How RKLLama came onto this machine, which decides how more of it does."""

from __future__ import annotations

import sys


def installer() -> str | None:
    """Return what installed this package: "pip", "uv", "debian"; None for a clone that is run as it is."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("rkllama").read_text("INSTALLER")
    except PackageNotFoundError:
        return None
    return text.strip() if text else None


def how_to_add_the_cpu_backend(requirement: str) -> str:
    """Return the hint for whoever lacks llama.cpp; `requirement` is what pip calls it."""
    if installer() == "debian":
        return (
            "Install the package rkllama-cpu of the same version, which is published beside rkllama: "
            "sudo apt install ./rkllama-cpu_*.deb"
        )
    return f"Install it: {sys.executable} -m pip install '{requirement}'"


def how_to_add_an_extra(extra: str) -> str:
    """Return the hint for whoever lacks what one of RKLLama's extras brings."""
    return f"Install it: {sys.executable} -m pip install 'rkllama[{extra}]'"


def how_to_update() -> str:
    """Return the hint for whoever wants a newer RKLLama."""
    if installer() == "debian":
        return "Download the newer package, then: sudo apt install ./rkllama_*.deb"
    return "Run the command that installed it once more, such as: pip install --upgrade rkllama"
