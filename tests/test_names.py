"""One name for one thing: no two public functions or classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1] / "boneage_ray"
# A command is one function with flags in cli/ and one that works in commands/; every part of a protocol has its main.
EXEMPT_FOLDERS, EXEMPT_NAMES = {"cli"}, {"main"}


def public_names(sources: dict[str, str]) -> dict[str, list[str]]:
    """Name of each public module-level function and class -> the modules that define it."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, text in sources.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                found[node.name].append(module)
    return found


def shared(sources: dict[str, str]) -> dict[str, list[str]]:
    """Names that more than one module defines."""
    return {
        name: modules
        for name, modules in public_names(sources).items()
        if len(modules) > 1 and name not in EXEMPT_NAMES
    }


def test_no_two_public_functions_or_classes_share_a_name():
    paths = [path for path in sorted(ROOT.rglob("*.py")) if path.parent.name not in EXEMPT_FOLDERS]
    assert len(paths) > 150
    assert shared({str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}) == {}


def test_a_planted_second_name_is_found():
    planted = {"a.py": "def evaluate(): pass\ndef _own(): pass\n", "b.py": "class evaluate: pass\ndef _own(): pass\n"}
    assert shared(planted) == {"evaluate": ["a.py", "b.py"]}
