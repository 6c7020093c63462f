"""Decrypts a token and forwards the signed token inside it."""

from .unwrapping import Opened, TokenCache, unwrap, unwrap_with_settings

__all__ = ["Opened", "TokenCache", "unwrap", "unwrap_with_settings"]
