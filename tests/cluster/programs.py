"""Programs that the test extra brings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def tool(name):
    """The path of one."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} was not found; install the test extra: pip install boneage-ray[test]"
    return found
