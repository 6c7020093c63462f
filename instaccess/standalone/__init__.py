"""For INSTALLED_APPS of a gateway or a service without our tables: has `manage.py check` look over its settings."""
