"""The commands that run the server as a service."""
