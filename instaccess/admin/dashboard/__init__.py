"""The dashboard on the index page of this app in the admin."""
