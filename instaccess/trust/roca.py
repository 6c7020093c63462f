"""Detection of RSA keys that are vulnerable to the ROCA attack (CVE-2017-15361).

A faulty library of Infineon chips generated primes of the form `k * M + (65537 ** a mod M)`, where `M` is the product
of the first primes. Modulo each of these primes, the modulus of such a key is therefore a power of 65537. An attacker
can compute the private key from such a modulus. See M. Nemec, M. Sýs, P. Švenda, D. Klinec and V. Matyáš: "The Return
of Coppersmith's Attack", ACM CCS 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

_GENERATOR = 65537
_LARGEST_PRIME = 167
"""The largest prime factor of `M` for the smallest keys. For larger keys, `M` has more prime factors."""


def _subgroups() -> Iterator[tuple[int, int]]:
    """Yield the odd primes for which only some numbers are a power of 65537 modulo the prime.

    Yields pairs of a prime and the order of 65537 modulo the prime.
    """
    for prime in range(3, _LARGEST_PRIME + 1, 2):
        if all(prime % divisor for divisor in range(3, prime, 2)):
            order, power = 1, _GENERATOR
            while power != 1:
                order, power = order + 1, power * _GENERATOR % prime
            if order < prime - 1:
                yield prime, order


_SUBGROUPS = tuple(_subgroups())


def is_weak(modulus: int) -> bool:
    """Return whether an RSA modulus has the structure of ROCA-weak keys.

    About one in 240 million other moduli (2 ** 27.8) has this structure by chance.
    """
    # The multiplicative group modulo a prime is cyclic. A number is therefore a power of 65537 if and only if the
    # order of the number divides the order of 65537.
    return all(pow(modulus, order, prime) == 1 for prime, order in _SUBGROUPS)
