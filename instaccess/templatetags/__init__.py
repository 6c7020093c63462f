"""The template tags of the admin pages. This package imports no other module of the app."""
