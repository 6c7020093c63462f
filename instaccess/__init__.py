"""Canvas's InstAccess tokens for any Django project: issue them, open them at the gateway, accept them."""

__version__ = "0.1.0"
