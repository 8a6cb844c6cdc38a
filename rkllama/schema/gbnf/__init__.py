"""From shapes to a grammar of llama.cpp's (GBNF)."""
