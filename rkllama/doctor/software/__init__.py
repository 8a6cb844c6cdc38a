"""Checks of what is installed on a machine: libraries, models, servers, settings."""
