"""The commands of `rkllama fleet`."""
