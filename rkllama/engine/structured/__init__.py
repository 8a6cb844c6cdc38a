"""Answers in a demanded shape: JSON, a schema, a tool call."""
