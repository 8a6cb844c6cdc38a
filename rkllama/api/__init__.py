"""The HTTP dialects: pure translation between JSON and the values of types.py, one module each.

They import neither each other, nor the web framework, nor the engine.
"""
