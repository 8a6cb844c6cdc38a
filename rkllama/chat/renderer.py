"""What renders a chat template, as the rest of this room sees it, and how that can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class BrokenTemplate(Exception):
    """The source is not a usable template; the message says why, and in which line."""


class RenderError(Exception):
    """The template refuses these variables, or fails on them; the message holds its own words."""


class TooCostly(RenderError):
    """Rendering takes too long or makes too much; the message says which."""


Renderer = Callable[[str, Mapping[str, Any]], str]
"""Renders the template with this source; the variables are JSON values.

Raises BrokenTemplate or RenderError.
"""
