"""The gateway role: decrypts a token, so that a reverse proxy can forward the signed token to a service."""

from .unwrapping import TokenCache, Unwrapped, unwrap, unwrap_with_settings

__all__ = ["TokenCache", "Unwrapped", "unwrap", "unwrap_with_settings"]
