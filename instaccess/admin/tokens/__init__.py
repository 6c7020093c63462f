"""The admin pages of issued tokens: the change list with chart, search and filters, the export, and revocation."""
