"""How models write tool calls, a file for each family, and how such text is read while it arrives."""
