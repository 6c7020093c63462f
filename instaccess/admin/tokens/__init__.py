"""Issued tokens in the admin: the list with its chart, search and filters, export and revocation."""
