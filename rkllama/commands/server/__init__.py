"""The server's begin and end."""
