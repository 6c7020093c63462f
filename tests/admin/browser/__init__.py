"""The admin in a real headless Chromium: what only a browser, an eye or a screen reader would notice."""
