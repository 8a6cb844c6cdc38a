"""Commands of several steps, a module for each group of them."""
