"""Answers that are written together with a model."""
