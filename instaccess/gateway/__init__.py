"""The gateway role: decrypts a token and returns the signed token inside it, for a proxy to forward."""

from .unwrapping import TokenCache, Unwrapped, unwrap, unwrap_with_settings

__all__ = ["TokenCache", "Unwrapped", "unwrap", "unwrap_with_settings"]
