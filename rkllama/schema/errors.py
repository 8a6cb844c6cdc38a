"""Why a schema has no grammar.

    SchemaError
    ├─ InvalidSchema       it is not a JSON schema, or nothing can meet it
    └─ UnsupportedSchema   it is one, but it asks for what a grammar here cannot hold

They are errors of this room alone: who compiles a schema decides what its client is told.
"""

from __future__ import annotations


class SchemaError(ValueError):
    """A schema without a grammar.

    `path` is a JSON pointer to the part that is at fault ("#/properties/age"), `keyword` the keyword in it,
    and `reason` what is wrong, in words that follow the keyword.
    """

    def __init__(self, path: str, keyword: str, reason: str) -> None:
        super().__init__(f"{keyword} at {path} {reason}")
        self.path = path
        self.keyword = keyword
        self.reason = reason


class InvalidSchema(SchemaError):
    """It is not a schema, refers to nothing, refers to itself without end, or cannot be met."""


class UnsupportedSchema(SchemaError):
    """It lies outside what is compiled; the usual way is to check the finished answer instead."""
