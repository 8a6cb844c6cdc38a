"""The same operations, done by a running server."""
