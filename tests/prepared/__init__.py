"""`python -m rkllama` in processes that have imported already what it imports; see start.py."""

from .start import Popen, own_processes, run, whole

__all__ = ["Popen", "own_processes", "run", "whole"]
