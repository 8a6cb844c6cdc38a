"""How fast a model runs here, measured so that two boards can be compared."""
