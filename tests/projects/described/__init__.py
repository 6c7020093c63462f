"""Settings, URLs and scripts of projects that generate their OpenAPI schema with drf-spectacular."""
