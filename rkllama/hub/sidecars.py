"""The small files beside a model: its chat template, its end-of-sequence ids, its configuration.

A .rkllm file holds no chat template, and its converter seldom uploads the tokenizer's files along. They
are taken from the model's repository, else from the base model that its card names. All of it is best
effort: a model without them still answers, by the template of its family.
"""

from __future__ import annotations

import logging
import os
import re
import time

from ..files import write_file
from ..models.filename import parse_model_name
from .api import Hub, RemoteFile, Repository

TEMPLATES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")
SIDECARS = (*TEMPLATES, "generation_config.json", "config.json")
SIZE_LIMIT = 8 << 20
"""Bytes; tokenizer_config.json lists all added tokens and reaches a few hundred kilobytes."""
TIME_LIMIT = 6.0
"""Seconds that all of them together may delay a pull."""
STEP_LIMIT = 3.0
"""Seconds that one request may stall."""

_CARD = "README.md"
_CARD_TOOLKIT = re.compile(
    r"(?i)rkllm(?:[- ](?:toolkit|runtime))?[* ]{0,4}(?:version)?[*:= |`]{0,8}"
    r"v?(\d\.\d{1,2}\.\d{1,2}(?:b\d)?)(?![\d.])"
)
"""As in "RKLLM version: 1.1.4", "rkllm-toolkit 1.2.0" or a table of these."""

_log = logging.getLogger(__name__)


def fetch_sidecars(hub: Hub, repository: Repository, model: RemoteFile, folder: str) -> None:
    """Put the model's small files into `folder`; returns within seconds and raises nothing."""
    if model.path.lower().endswith(".gguf"):
        return  # its header holds the template
    deadline = time.monotonic() + TIME_LIMIT
    subfolder = model.path.rpartition("/")[0]
    sources: list[Repository | str] = [repository, *repository.base_models]
    fetched: set[str] = set()
    for source in sources:
        # One source's template goes with that source's special tokens: these files are not mixed.
        done = {*TEMPLATES, *fetched} if fetched & set(TEMPLATES) else fetched
        missing = [name for name in SIDECARS if name not in done]
        if not missing:
            return
        try:
            if isinstance(source, str):
                source, subfolder = hub.repository(source, timeout=_left(deadline)), ""
            for name in missing:
                if _fetch(hub, source, subfolder, name, folder, deadline):
                    fetched.add(name)
        except Exception as error:  # the model matters more than any error of the server
            _log.info("cannot fetch the template and tokenizer files of %s: %s", model.name, error)


def told_toolkit(hub: Hub, repository: Repository, model: RemoteFile) -> str | None:
    """Return the toolkit that made a model, as its file, its repository's name or else the card tells; None
    if the card names none or several, or is not to be had within seconds.
    """
    if not model.path.lower().endswith(".rkllm"):
        return None
    # What the repository is called is lost under the name that the model gets here.
    named = parse_model_name(model.path, repository.id).toolkit
    if named is not None or _CARD not in repository.files:
        return named
    try:
        text = _read(hub, repository, _CARD, time.monotonic() + STEP_LIMIT) or b""
    except Exception as error:  # the model matters more than any error of the server
        _log.info("cannot fetch the card of %s: %s", model.name, error)
        return None
    versions = {match[1] for match in _CARD_TOOLKIT.finditer(text.decode("utf-8", "replace"))}
    return versions.pop() if len(versions) == 1 else None


def has_template(folder: str) -> bool:
    """Return whether one of the files that hold a chat template lies in `folder`."""
    return any(os.path.exists(os.path.join(folder, name)) for name in TEMPLATES)


def _fetch(
    hub: Hub, source: Repository, subfolder: str, name: str, folder: str, deadline: float
) -> bool:
    """Put the file `name` of `source` into `folder`: that beside the model, else that at its top."""
    for path in (f"{subfolder}/{name}", name):
        if path in source.files:
            content = _read(hub, source, path, deadline)
            if content is not None:
                write_file(os.path.join(folder, name), content)
            return content is not None
    return False


def _read(hub: Hub, repository: Repository, path: str, deadline: float) -> bytes | None:
    """Return the file's bytes; None when it is too large or not to be had."""
    content = bytearray()
    with hub.open_small(repository, path, _left(deadline)) as response:
        if response.status_code != 200 or "content-encoding" in response.headers:
            return None
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > SIZE_LIMIT:
                return None
            _left(deadline)
    announced = response.headers.get("content-length")
    return None if announced and announced != str(len(content)) else bytes(content)


def _left(deadline: float) -> float:
    """Return seconds that the next step may take. Raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the Hub is too slow")
    return min(seconds, STEP_LIMIT)
