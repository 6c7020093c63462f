"""Decrypts a token and forwards the signed token inside it."""

from .unwrapping import TokenCache, Unwrapped, unwrap, unwrap_with_settings

__all__ = ["TokenCache", "Unwrapped", "unwrap", "unwrap_with_settings"]
