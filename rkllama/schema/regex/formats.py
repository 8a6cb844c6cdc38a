"""The formats of JSON schema that are asserted, as automata. All others say nothing about a text."""

from __future__ import annotations

from functools import cache

from .automata import Spot, compile_pattern, matches

_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9][0-9]|[1-9][0-9]{3})"
_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|(?:[0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)-02-29)"
)
# No leap seconds: which days have one is not written in the text.
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+-]{_CLOCK})"

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_LAST_GROUPS = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"
_IPV6 = "|".join(
    [f"(?:{_GROUP}:){{6}}{_LAST_GROUPS}", f"::(?:{_GROUP}:){{5}}{_LAST_GROUPS}"]
    + [
        f"(?:(?:{_GROUP}:){{0,{n}}}{_GROUP})?::(?:{_GROUP}:){{{4 - n}}}{_LAST_GROUPS}"
        for n in range(5)
    ]
    + [f"(?:(?:{_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}", f"(?:(?:{_GROUP}:){{0,6}}{_GROUP})?::"]
)

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
# As mail is addressed today: no quotes, no comments, and a domain with a dot.
_EMAIL = rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+"

_PLAIN = r"A-Za-z0-9._~!$&'()*+,;=\-"
_ESCAPED = "%[0-9A-Fa-f]{2}"
_SEGMENT = f"(?:[{_PLAIN}:@]|{_ESCAPED})"
# No addresses of IPv6 in brackets: a thousand states for what no model writes.
_HOST = f"(?:[{_PLAIN}]|{_ESCAPED})*"
_AUTHORITY = f"(?:(?:[{_PLAIN}:]|{_ESCAPED})*@)?{_HOST}(?::[0-9]*)?"
_PATH = f"(?:/{_SEGMENT}*)*"
_URI = (
    f"[A-Za-z][A-Za-z0-9+.-]*:(?://{_AUTHORITY}{_PATH}|/(?:{_SEGMENT}+{_PATH})?|{_SEGMENT}+{_PATH}|)"
    rf"(?:\?(?:{_SEGMENT}|[/?])*)?(?:#(?:{_SEGMENT}|[/?])*)?"
)
_HEX = "[0-9A-Fa-f]"

_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "email": _EMAIL,
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": _URI,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
}
FORMATS = tuple(_PATTERNS)
"""The names of the formats that are asserted."""


@cache
def format_automaton(name: str) -> Spot | None:
    """Return where a format's automaton begins; None for a format that is not asserted."""
    pattern = _PATTERNS.get(name)
    return None if pattern is None else compile_pattern(f"^(?:{pattern})$")


def has_format(text: str, name: str) -> bool:
    """Return whether a text has a format. Every text has one that is not asserted."""
    return name not in _PATTERNS or matches(format_automaton(name), text)
