"""Functions that generate RSA keys with the ROCA weakness (CVE-2017-15361), as faulty Infineon chips did."""

from __future__ import annotations

import math
import random
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwcrypto.jwk import JWK


@cache
def roca_weak_key(primes: int) -> JWK:
    """Generate a key of 2048 bits whose primes are `k * M + (65537 ** a mod M)` (Nemec et al., ACM CCS 2017).

    Args:
        primes: the number of smallest primes whose product is `M`. The faulty chips used 39 primes for the smallest
            keys, and 126 primes for keys of 2048 bits.
    """
    rng = random.Random(primes)
    p, q = _weak_prime(rng, primes), _weak_prime(rng, primes)
    n, d = p * q, pow(65537, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(65537, n)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    pem = numbers.private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return JWK.from_pem(pem)


def _weak_prime(rng: random.Random, primes: int) -> int:
    """Generate a weak prime of 1024 bits whose two highest bits are set."""
    modulus = math.prod(_first_primes(primes))
    low, high = (3 << 1022) // modulus + 1, (1 << 1024) // modulus - 1
    while True:
        prime = rng.randint(low, high) * modulus + pow(65537, rng.randrange(1, modulus), modulus)
        if all(
            pow(base, prime - 1, prime) == 1 for base in (2, 3, 5, 7)
        ):  # A Fermat primality test is reliable enough for a test key.
            return prime


def _first_primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found
