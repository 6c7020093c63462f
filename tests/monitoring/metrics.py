"""Helpers that scrape the metrics endpoint and return the values of metrics."""

from __future__ import annotations

from typing import Any

from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

METRICS = "/internal/metrics"


class Scraped:
    """The metric samples that one scrape returned."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample, or None if the sample is absent."""
        return self.samples.get((name, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def labels(self, name: str) -> set[frozenset[tuple[str, str]]]:
        return {labels for each, labels in self.samples if each == name}


def scrape(client: Any = None) -> Scraped:
    response = (client or Client()).get(METRICS)
    assert response.status_code == 200, response.content
    return Scraped(response.content.decode())


class Growth:
    """The growth of counters since this object was created. Earlier tests may have increased the counters too."""

    def __init__(self) -> None:
        self._before = scrape()

    def __call__(self, name: str, **labels: str) -> float:
        return (scrape()(name, **labels) or 0) - (self._before(name, **labels) or 0)
