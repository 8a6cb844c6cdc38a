"""The page that a browser gets: its source, and page.html, which tools/page.py puts together from it."""
