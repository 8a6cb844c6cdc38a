"""Many small cases in one test: pytest itself takes 5 ms for each test, which most cases do not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])


def cases(
    names: str | Sequence[str],
    values: Iterable[Any],
    *,
    ids: Iterable[Any] | Callable[[Any], Any] | None = None,
) -> Callable[[Test], Test]:
    """As `pytest.mark.parametrize`, for a test that leaves its fixtures as they were: all cases are tried,
    and a failure names those that have failed and shows the first.
    """
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    values = [*values]
    assert values, "no case: the test could not fail"
    labels: list[Any] = [None] * len(values)
    if ids is not None:
        labels = [*map(ids, values)] if callable(ids) else [*ids]
    every = [
        (_label(value, label), _arguments(names, value))
        for value, label in zip(values, labels, strict=True)
    ]

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            failed = {}
            for label, arguments in every:
                try:
                    test(**fixtures, **arguments)
                except (Exception, pytest.fail.Exception) as error:
                    failed[label] = error
            if failed:
                [first, *_] = failed.values()
                told = "".join(f"\n  {label}" for label in failed)
                raise AssertionError(f"{len(failed)} of {len(every)} cases:{told}") from first

        signature = inspect.signature(test)
        left = [one for name, one in signature.parameters.items() if name not in names]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return decorate


def _arguments(names: list[str], value: Any) -> dict[str, Any]:
    if isinstance(value, ParameterSet):
        assert not value.marks, "a case has no marks"
        return dict(zip(names, value.values, strict=True))
    return {names[0]: value} if len(names) == 1 else dict(zip(names, value, strict=True))


def _label(value: Any, label: Any) -> str:
    if isinstance(value, ParameterSet):
        return str(value.id or _short(value.values))
    return _short(value) if label is None else str(label)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


ParameterSet = type(pytest.param())
