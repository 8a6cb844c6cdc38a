"""Tests of the service: units, what installs them, and what server and systemd tell each other."""
