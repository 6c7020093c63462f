"""The gateway role: decryption of a token. A proxy forwards the signed token that the encrypted token contains."""

from .unwrapping import TokenCache, Unwrapped, unwrap, unwrap_with_settings

__all__ = ["TokenCache", "Unwrapped", "unwrap", "unwrap_with_settings"]
