"""Projects with drf-spectacular, and the OpenAPI schemas of these projects."""
