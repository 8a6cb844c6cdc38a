"""`python -m rkllama` in processes that have imported already what it imports; see start.py."""

from .start import Popen, run, whole

__all__ = ["Popen", "run", "whole"]
