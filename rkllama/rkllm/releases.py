"""The published releases of librkllmrt: where each lies, how it is recognised, and which to prefer.

The vendor publishes one file for each machine in a git repository. A file there has a blob id (the SHA-1
of a header and its bytes), by which a copy of it is verified wherever it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import InvalidRequest

LICENCE = "LICENSE"
"""The path of the vendor's licence at each commit."""

_FOLDER = "rkllm-runtime/Linux/librkllm_api/"
_OLD_FOLDER = "rkllm-runtime/runtime/Linux/librkllm_api/"


class Published(NamedTuple):
    """A release in the vendor's repository; `blobs` has the git blob id of each machine's file."""

    commit: str
    blobs: Mapping[str, str]
    folder: str = _FOLDER
    file: str = "librkllmrt.so"

    def path(self, machine: str) -> str:
        """Return the path of a machine's file at the commit."""
        return f"{self.folder}{machine}/{self.file}"

    def label(self, release: str = "") -> str:
        """Return what to call it: "librkllmrt 1.2.3"."""
        return f"{self.file.removesuffix('.so')} {release}".rstrip()


PUBLISHED: dict[str, Published] = {
    "1.1.0": Published(
        "71773f050acf27261b05c076bf7e9a22f1bfb18c",
        {"aarch64": "66dfdc7c25cdca9ccf9930798118e17abf7592ff"},
        _OLD_FOLDER,
    ),
    "1.1.1": Published(
        "61edffefc13e4a7ae5496f48a3e82945c345a379",
        {"aarch64": "bfca051375287d0f5aa754a7b8681b4ede52e259"},
        _OLD_FOLDER,
    ),
    "1.1.2": Published(
        "71c79c3c0fbcb32982aea2ef2b4e9807b73ec91b",
        {"aarch64": "e8f4afc38c7394beeff83003dbc772412f649a44"},
        _OLD_FOLDER,
    ),
    "1.1.3": Published(
        "1a502afb52bddc49c2f4e9c0b025b7ab471467a9",
        {"aarch64": "68e79327e82f675413956be615f48c62ccd0f16e"},
        _OLD_FOLDER,
    ),
    "1.1.4": Published(
        "8623edd0559a07e7127876d685f2b7ca8b83590c",
        {"aarch64": "3bb8cb6172c4c06e1c622c8f8c579888378784f4"},
    ),
    "1.2.0": Published(
        "cb5b341364311065fd19eddd631a79a9f0c5afe1",
        {"aarch64": "d45ee9b8dcb9ef27d7dd875ce3be3d5e6dfb654d"},
    ),
    "1.2.1b1": Published(
        "d8a9f6a9cce06922bf61ea9151d72fbf55dd55bb",
        {"aarch64": "db041c01bba5e0e8f624bb2ff50d48825dde1bfc"},
    ),
    "1.2.1": Published(
        "d546a0f975d62469cf1306f98103c737ff933506",
        {
            "aarch64": "6b9439d59f2fe4bb8ef5ee2b09c102f1bf993da9",
            "armhf": "7025f35825e04ad75d839d10392e3c02cc88e57a",
        },
    ),
    "1.2.2": Published(
        "04b51a3c10bf4416f3815b630a35fc35e20a38d1",
        {
            "aarch64": "8ed9cca16f8d5ad8f7cdd7d393de6561182b3395",
            "armhf": "d5953fdad6e60521f1dc696f6d638425c93ba08d",
        },
    ),
    "1.2.3": Published(
        "f7df8e5de9b40dc7aaa66194cf14d4895aaf159a",
        {
            "aarch64": "0084abc34ab43359cfa9fd5d4c92ece34127dbd0",
            "armhf": "fe1ca6849603a770c54f82d26b826a120c79a01a",
        },
    ),
    "1.3.0": Published(
        "878f9361fd3afa7e167b7079918918f78d2c1c2a",
        {
            "aarch64": "34167b32f99cb7ab19e21fb579fb750d96b878f1",
            "armhf": "17c9063b46168c4e7d093d6fedb097874f92d076",
        },
    ),
}
"""By release, oldest first; the keys are those of abi.RELEASES."""

ENCODERS = "rknn"
"""What users call librknnrt, which models that see need beside librkllmrt."""
ENCODER_LIBRARY = Published(
    PUBLISHED["1.3.0"].commit,
    {
        "aarch64": "e53a2b6ec332f2863df5c70cd9f6ebec9dbef397",
        "armhf": "7187eabef19aeabec6d04b923d2de2df14b790e6",
    },
    "examples/multimodal_model_demo/deploy/3rdparty/librknnrt/Linux/librknn_api/",
    "librknnrt.so",
)
"""The vendor keeps it beside the demo; it is one for all releases."""

SIGILL_RISK = "Some builds of librkllmrt 1.3.0 have been seen to die on the RK3588 (SIGILL)."
_DOUBTFUL: Mapping[str, tuple[str, ...]] = {"RK3588": ("1.3.0",)}
"""Releases that have been seen to fail on a SoC whatever the model."""
_BAD_TOGETHER: Mapping[str, tuple[str, ...]] = {"1.3.0": ("1.2.2", "1.2.3")}
"""Toolkits whose models do not end their answers on a release."""

_RELEASE = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}(?:b(\d{1,3}))?")


def is_release(name: str) -> bool:
    """Return whether `name` is written like a release, 1.2.3 or 1.2.1b1; it need not be a known one."""
    return _RELEASE.fullmatch(name) is not None


def numbers(version: str) -> tuple[int, int, int]:
    """Return the version of a runtime or toolkit as numbers that compare; a beta counts as its release."""
    found = re.findall(r"\d+", version.partition("b")[0])
    major, minor, patch = (*map(int, found), 0, 0, 0)[:3]
    return major, minor, patch


def age(release: str) -> tuple[int, ...]:
    """Return what orders releases, the oldest first; a beta stands before its release."""
    match = _RELEASE.fullmatch(release)
    if match is None:
        return ()
    return (*numbers(release), int(match[1]) if match[1] else 1000)


def published_for(machine: str | None) -> list[str]:
    """Return the releases that the vendor has published for a machine, oldest first."""
    return [release for release, one in PUBLISHED.items() if machine in one.blobs]


def is_doubtful(release: str, soc: str | None) -> bool:
    """Return whether a release has been seen to fail on a SoC whatever the model."""
    return release in _DOUBTFUL.get((soc or "").removesuffix("S"), ())


def are_bad_together(release: str, toolkit: str | None) -> bool:
    """Return whether models of `toolkit` load on `release` but do not end their answers."""
    return toolkit is not None and toolkit in _BAD_TOGETHER.get(release, ())


def default_release(soc: str | None, machine: str) -> str:
    """Return the newest release for `machine` that is known to run on `soc`. Raises InvalidRequest."""
    sure = [release for release in published_for(machine) if not is_doubtful(release, soc)]
    if not sure:
        raise InvalidRequest(
            f"there is no librkllmrt for {machine}",
            hint="It is published for aarch64 and armhf. Models in .gguf format run without it.",
        )
    return sure[-1]


def in_order(releases: Iterable[str], *, toolkit: str | None, first: Iterable[str]) -> list[str]:
    """Return releases in the order in which to try a model of `toolkit` with them.

    At the front stand those of `first` that are among them, then those of the toolkit's minor version,
    each group from the newest to the oldest. What is known to be bad with the toolkit is last.
    """
    newest_first = sorted(set(releases), key=age, reverse=True)
    wished = [release for release in first if release in newest_first]

    def rank(release: str) -> tuple[int, ...]:
        if release in wished:
            return (0, wished.index(release))
        bad = are_bad_together(release, toolkit)
        return (1, bad, toolkit is None or numbers(release)[:2] != numbers(toolkit)[:2])

    return sorted(newest_first, key=rank)


def wanted_release(
    toolkit: str | None, soc: str | None, machine: str | None, tried: Iterable[str] = ()
) -> str | None:
    """Return the release to install for a model of `toolkit` that none of `tried` could load; None if there
    is no other.

    It is the newest of the toolkit's minor version, else the newest; what is doubtful on `soc` comes last,
    and what is older than the toolkit, which refuses the model, is only taken where nothing else is left.
    """
    left = set(published_for(machine) or PUBLISHED).difference(tried)
    if toolkit is not None:
        left = {one for one in left if numbers(one) >= numbers(toolkit)} or left
    order = in_order(left, toolkit=toolkit, first=())
    order.sort(key=lambda release: is_doubtful(release, soc))
    return order[0] if order else None
