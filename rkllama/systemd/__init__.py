"""The service: units for systemd, what installs them, and what a server says to systemd."""
