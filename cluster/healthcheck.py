"""Is this container alive: as a service (BONEAGE_PORT, 8000), or as a Ray node (its agent's port)? Exit 0 or 1."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

RAY_AGENT_PORT = 52365
TIMEOUT_S = 4


def healthy(urls: list[str]) -> bool:
    """Whether one of them answers 200."""
    return any(_answers(url) for url in urls)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    port = os.environ.get("BONEAGE_PORT", "8000")
    places = [f"http://127.0.0.1:{port}/healthz", f"http://127.0.0.1:{RAY_AGENT_PORT}/api/healthz"]
    sys.exit(0 if healthy(places) else 1)
