"""Detection of RSA keys that are weak to the ROCA attack (CVE-2017-15361).

A faulty library of Infineon chips generated primes of the form `k * M + (65537 ** a mod M)`, where `M` is the product
of the first primes. The modulus of such a key is therefore a power of 65537 modulo each of these primes, and an
attacker can factor the modulus. See M. Nemec, M. Sýs, P. Švenda, D. Klinec and V. Matyáš: "The Return of
Coppersmith's Attack", ACM CCS 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

_GENERATOR = 65537
_LARGEST_PRIME = 167
"""The largest factor of `M` for the smallest keys. The `M` of larger keys contains further primes."""


def _subgroups() -> Iterator[tuple[int, int]]:
    """Yield odd primes with the order of 65537 modulo the prime, if not every number is a power of 65537."""
    for prime in range(3, _LARGEST_PRIME + 1, 2):
        if all(prime % divisor for divisor in range(3, prime, 2)):
            order, power = 1, _GENERATOR % prime
            while power != 1:
                order, power = order + 1, power * _GENERATOR % prime
            if order < prime - 1:
                yield prime, order


_SUBGROUPS = tuple(_subgroups())


def is_weak(modulus: int) -> bool:
    """Return whether an RSA modulus has the structure of ROCA-weak keys.

    About one in 240 million other keys (2 ** 27.8) has this structure by chance.
    """
    # The multiplicative group modulo a prime is cyclic, so a number is a power of 65537 exactly if the order of 65537
    # is a multiple of the order of the number.
    return all(pow(modulus, order, prime) == 1 for prime, order in _SUBGROUPS)
