"""Regular expressions and formats as automata over characters."""
