"""What is on this machine to be examined: the models, and the releases that each would be loaded with."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Sized
from typing import NamedTuple

from ...board.soc import read_soc
from ...config import Settings
from ...errors import RKLLamaError
from ...models.catalog import Watch
from ...models.filename import parse_model_name, parse_platform
from ...models.labels import origins
from ...models.metadata import ModelReader, StoredModel
from ...models.scan import Entry
from ...rkllm.installed import UNKNOWN, Installed, Runtimes
from ...rkllm.library import look_for_library
from ...rkllm.releases import in_order, numbers
from ..finding import Subject

_SHOWN = 3
_looking = threading.Lock()


class Models(NamedTuple):
    """What the models directory holds of a subject."""

    entries: tuple[Entry, ...] = ()
    """Models and aliases; the format of an alias whose model is not there is ""."""
    incomplete: tuple[Entry, ...] = ()
    passed_over: tuple[str, ...] = ()
    fault: RKLLamaError | None = None
    """Why the directory cannot be read."""

    def of_format(self, extension: str) -> list[Entry]:
        """Return the models of a format, "rkllm" or "gguf", without their aliases."""
        return [one for one in self.entries if one.format == extension and not one.parent]


def read_models(subject: Subject) -> Models:
    """Return the models; where the subject is one, that one and the model behind an alias."""
    watch = _watch(subject.settings.models)
    try:
        with _looking:
            entries = list(watch.entries())
            incomplete, passed_over = watch.incomplete, watch.passed_over
    except RKLLamaError as error:
        return Models(fault=error)
    if subject.model is not None:
        return Models(tuple(_with_model_of(entries, subject.model)))
    return Models(tuple(entries), incomplete, passed_over)


@functools.lru_cache(maxsize=1)
def _watch(models: str) -> Watch:
    """Return what looks at the directory once for all the checks, as long as nothing changes in it."""
    return Watch(models)


def _with_model_of(entries: list[Entry], name: str) -> list[Entry]:
    named = [entry for entry in entries if entry.name == name]
    paths = {entry.path for entry in named}
    return named + [
        one for one in entries if one.path in paths and not one.parent and one.name != name
    ]


def read_stored(subject: Subject, entry: Entry) -> StoredModel:
    """Return all that is known of a model, for which its files are read, once for all the checks."""
    with _looking:
        return _reader(os.path.realpath(subject.settings.models)).stored([entry])


@functools.lru_cache(maxsize=1)
def _reader(root: str) -> ModelReader:
    return ModelReader(root)


class Use(NamedTuple):
    """What a model of the NPU is loaded with."""

    model: Entry
    toolkit: str | None
    """The one that made it, where that is known."""
    releases: tuple[Installed, ...]
    """In the order in which they are tried."""
    missing: str | None
    """The release that the user chose for it, where that is not installed."""
    proven: str | None
    """The release that has loaded it before."""

    @property
    def first(self) -> Installed | None:
        """What it would be loaded with now: an older one than its toolkit refuses it."""
        return next(iter((*self.fitting, *self.releases)), None)

    @property
    def fitting(self) -> tuple[Installed, ...]:
        """The releases that are not older than the toolkit: those refuse the model."""
        if self.toolkit is None:
            return self.releases
        return tuple(one for one in self.releases if not is_older(one.release, self.toolkit))


def npu_models(subject: Subject) -> list[Entry]:
    """Return the models for the NPU, without those that were made for another SoC than this board's."""
    models, soc = read_models(subject).of_format("rkllm"), read_soc()
    ours = None if soc is None else parse_platform(soc)
    return models if ours is None else [one for one in models if platform_of(one) in (None, ours)]


def platform_of(entry: Entry) -> str | None:
    """Return the SoC that the nearest of a model's names tells, "rk3588"."""
    names = (parse_platform(name) for name in (entry.file, *origins(entry)))
    return next((platform for platform in names if platform is not None), None)


def is_older(release: str, toolkit: str) -> bool:
    """Return whether a release is older than a toolkit; one that is not known is not."""
    return release != UNKNOWN and numbers(release) < numbers(toolkit)


def installed_releases(settings: Settings) -> list[Installed]:
    """Return the releases that may be used, newest first; with a library in the settings, that alone."""
    if settings.rkllm_lib is None:
        return Runtimes(settings.home).installed()
    path, version = look_for_library(settings.rkllm_lib, os.environ)
    if path is None:
        return []
    return [Installed(settings.rkllm_abi or version or UNKNOWN, path, managed=False)]


def read_uses(
    settings: Settings, models: Iterable[Entry], installed: Iterable[Installed]
) -> list[Use]:
    """Return what each of these models of the NPU is loaded with, by one look at the choices."""
    models, here = list(models), {one.release: one for one in installed}
    runtimes = Runtimes(settings.home)
    choices = runtimes.choices(entry.path for entry in models)
    default = runtimes.default()
    uses = []
    for entry in models:
        choice = choices[entry.path]
        toolkit = choice.toolkit or parse_model_name(entry.file, entry.folder or None).toolkit
        binding = choice.chosen and settings.rkllm_lib is None
        if binding:
            order = [choice.release] if choice.release in here else []
        else:
            first = [name for name in (choice.release, default) if name is not None]
            order = in_order(here, toolkit=toolkit, first=first)
        uses.append(
            Use(
                model=entry,
                toolkit=toolkit,
                releases=tuple(here[name] for name in order if name is not None),
                missing=choice.release if binding and not order else None,
                proven=None if choice.chosen else choice.release,
            )
        )
    return uses


def name_some(names: Iterable[str]) -> str:
    """Return names as a text: the first few, and how many there are besides."""
    names = list(names)
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def verb(names: Sized, one: str, several: str) -> str:
    """Return the form of a verb that goes with so many names."""
    return one if len(names) == 1 else several
