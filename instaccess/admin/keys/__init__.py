"""Keys in the admin: the list with its overview, and the buttons that change keys."""
