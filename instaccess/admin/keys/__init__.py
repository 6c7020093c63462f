"""Keys in the admin: the change list with its overview, and the buttons that change keys."""
