"""Models on disk: what lies there, what it is called, what is known of it."""
