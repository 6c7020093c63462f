"""Canvas's InstAccess tokens for Django projects.

An issuer exchanges OAuth2 access tokens for encrypted InstAccess tokens. A gateway decrypts an InstAccess token and
forwards the signed token inside the InstAccess token. A service authenticates requests by the signed token. One
deployment may have all three roles.
"""

__version__ = "0.1.0"
