"""The admin pages of keys: the change list with its overview, and the buttons that change keys."""
