"""Messages to text and back: templates, tool calls, thinking. Pure: no disk, no process."""
