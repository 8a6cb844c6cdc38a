"""The values of settings that are more than a number or a word. Imported where such a one is set."""
