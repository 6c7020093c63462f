"""Tests of the admin in headless Chromium: scripts, content security policy, layout and accessibility."""
