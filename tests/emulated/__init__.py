"""What runs in the Python of another machine; see test_emulated.py."""
