"""`rkllama config`: the settings, where each was set, and changing those in the file."""
