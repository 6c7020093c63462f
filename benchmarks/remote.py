"""The settings of the benchmarks for a gateway that reads the JWKS and the revocations from BENCHMARK_ISSUER."""

import os
from typing import Any

from .settings import *  # noqa: F403
from .settings import INSTACCESS as _SETTINGS

_INTERNAL = f"{os.environ['BENCHMARK_ISSUER']}/internal/services"
INSTACCESS: dict[str, Any] = {
    **_SETTINGS,
    "VERIFICATION_KEYS": f"{_INTERNAL}/jwks",
    "DENY_LIST": f"{_INTERNAL}/revocations",
    # With this value, the gateway uses the cached keys and revocations during the whole outage of the issuer.
    "MAX_STALENESS": 3600,
}
