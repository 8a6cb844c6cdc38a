"""What a text has to be to meet a schema, said by others: the jsonschema package, with formats asserted by
the standard library and a parser that refuses duplicate keys.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from jsonschema import FormatChecker, validators
from jsonschema.exceptions import ValidationError

FORMATS = FormatChecker(formats=())


def _asserted(name: str, test: Callable[[str], object]) -> None:
    def check(value: object) -> bool:
        return not isinstance(value, str) or bool(test(value))

    FORMATS.checks(name, raises=ValueError)(check)


_CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)(\.\d+)?([zZ]|[+-](\d\d):(\d\d))", re.ASCII)


def _is_time(text: str) -> bool:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return False
    hours, minutes = int(match[6] or 0), int(match[7] or 0)
    return int(match[1]) < 24 and max(int(match[2]), int(match[3]), minutes) < 60 and hours < 24


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return False
    datetime.date.fromisoformat(text)
    return True


_URI = re.compile(r"([^:/?#]+):(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_LETTERS = r"A-Za-z0-9._~!$&'()*+,;=\-"


def _is_uri(text: str) -> bool:
    match = _URI.fullmatch(text)
    if match is None or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", match[1]):
        return False
    user, _, host = (match[2] or "").rpartition("@")
    if not re.fullmatch(rf"(?:[{_LETTERS}:]|%[0-9A-Fa-f]{{2}})*", user) or not re.fullmatch(
        rf"(?:[{_LETTERS}]|%[0-9A-Fa-f]{{2}})*(?::\d*)?", host, re.ASCII
    ):
        return False
    if match[2] is None and match[3].startswith("//"):
        return False
    rest = "".join(filter(None, match.groups()[2:]))
    return re.fullmatch(rf"(?:[{_LETTERS}:@/?]|%[0-9A-Fa-f]{{2}})*", rest) is not None


def _is_email(text: str) -> bool:
    local, _, domain = text.partition("@")
    labels = domain.split(".")
    atoms = local.split(".")
    return (
        len(labels) > 1
        and all(re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", atom) for atom in atoms)
        and all(re.fullmatch(r"[A-Za-z0-9-]{1,63}", label) for label in labels)
        and not any(label[0] == "-" or label[-1] == "-" for label in labels)
    )


_asserted("date", _is_date)
_asserted("time", _is_time)
_asserted(
    "date-time",
    lambda text: text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:]),
)
_asserted("email", _is_email)
_asserted("uuid", lambda text: str(uuid.UUID(text)) == text.lower())
_asserted("uri", _is_uri)
_asserted("ipv4", ipaddress.IPv4Address)
_asserted("ipv6", lambda text: "%" not in text and ipaddress.IPv6Address(text))


def _multiple(validator: Any, factor: Any, number: Any, _schema: Any) -> Iterator[Any]:
    if not validator.is_type(number, "number"):
        return
    if Fraction(Decimal(str(number))) % Fraction(Decimal(str(factor))):
        yield ValidationError("not a multiple")


def _pattern(validator: Any, pattern: str, text: Any, _schema: Any) -> Iterator[Any]:
    """Whatever `\\d` and its like mean to the reader."""
    pattern = pattern.replace("(?<", "(?P<")
    if not validator.is_type(text, "string"):
        return
    if not re.search(pattern, text) or not re.search(pattern, text, re.ASCII):
        yield ValidationError("does not match")


def _objects(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)


def _refused(name: str) -> Any:
    raise ValueError(name)


def parse(text: str) -> Any:
    """Return the value of a text. Raises ValueError also for duplicate keys and half characters."""
    value = json.loads(text, object_pairs_hook=_objects, parse_constant=_refused)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _with_null(schema: Any) -> Any:
    """A schema with OpenAPI's `nullable` in words of JSON schema's."""
    if isinstance(schema, list):
        return [_with_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: each if name in ("const", "enum") else _with_null(each)
        for name, each in schema.items()
    }
    if made.get("nullable") is True and isinstance(made.get("type"), str | list):
        types = made["type"] if isinstance(made["type"], list) else [made["type"]]
        made["type"] = [*types, "null"]
    return made


class Reference:
    """A schema as others read it."""

    def __init__(self, schema: Any, root: Any = None) -> None:
        schema = _with_null({"type": "object"} if schema == "json" else schema)
        default = validators.Draft202012Validator
        kind = validators.validator_for(schema, default=default)
        exact = validators.extend(kind, {"multipleOf": _multiple, "pattern": _pattern})
        self._validator = exact(schema, format_checker=FORMATS)

    def is_valid(self, text: str) -> bool:
        """Return whether a text meets the schema."""
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            return False
        return self.admits(value)

    def admits(self, value: Any) -> bool:
        """Return whether a value meets the schema."""
        return bool(self._validator.is_valid(value))


_UNUSUAL = re.compile(
    r"-0(?![.\d])|-0\.0+(?!\d)|\d[eE]|\d\.0*(?!\d)|\d{20}|[ \n\r\t]{100}|\d\.\d*0(?!\d)", re.ASCII
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def is_plainly_written(text: str) -> bool:
    """Return whether all numbers of a text are written as usual: 1, and not 1.0, 1e0 or -0."""
    return _UNUSUAL.search(_STRING.sub('""', text)) is None
