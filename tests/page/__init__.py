"""The page in real browsers: Debian's Chromium through Playwright, and Firefox through WebDriver BiDi."""
