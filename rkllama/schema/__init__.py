"""JSON schemas as grammars: what may come next in a text that has to meet one.

Pure, and imported only by who writes or checks such texts; `grammar` is its door.
"""
