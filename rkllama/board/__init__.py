"""The board: its SoC, and who owns its NPU."""
