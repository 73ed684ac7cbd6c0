"""What the connected Ray's metrics ports say, as Prometheus reads it."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from boneage_ray.runtime.metrics import METRICS

PATIENCE_S = 240
OWN = {series: metric for metric in METRICS for series in metric.series}


def scraped():
    """(series, its values of our own labels in order) -> the sum over nodes and processes; other series are left out."""
    import ray

    found = Counter()
    for node in ray.nodes():
        with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as page:
            text = page.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if metric := OWN.get(sample.name):
                    labels = [*metric.labels, *(["le"] if sample.name.endswith("_bucket") else [])]
                    found[sample.name, *(sample.labels[label] for label in labels)] += sample.value
    return found


def settled():
    """What the ports say once nothing of earlier requests is still on its way: processes report every two seconds."""
    found = scraped()
    while True:
        time.sleep(5)
        if (later := scraped()) == found:
            return found
        found = later


def wait_for(expected, before):
    """Until the ports say this much more than before; what they say then."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        now = scraped()
        grown = {key: now[key] - before[key] for key in expected}
        if grown == expected:
            return now
        assert time.monotonic() < deadline, {key: (grown[key], expected[key]) for key in expected}
        time.sleep(0.5)
