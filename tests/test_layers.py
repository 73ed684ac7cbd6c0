"""The shape of the package: import direction, no cycles, where Ray and torch may come in, and the budget for the eye."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "boneage_ray"
ROOT = Path(__file__).parents[1] / PACKAGE

# A module imports only from layers above its own, or from its own.
LAYERS = (
    *("errors", "environment", "keys", "anatomy", "drawing", "storage", "runtime", "archives", "decoding", "records"),
    *(
        "preparation",
        "phantoms",
        "datasets",
        "augment",
        "models",
        "tasks",
        "recipes",
        "artifacts",
        "builtin",
        "model_card",
    ),
    *("bundle", "training", "prediction", "evaluation", "findings", "scoring", "export", "serving"),
    *("client", "commands", "cli", "__main__"),
)
RAY_MODULES = {
    "runtime.autoscaler",
    "runtime.cluster",
    "runtime.gpu_stage",
    "runtime.metrics",
    "runtime.nodes",
    "runtime.resources",
    "datasets.load",
    "training.board",
    "training.driver",
    "training.elastic",
    "training.ray_world",
    "training.sweep_run",
    "serving.app",
    "serving.running",
    "commands.service",
    "commands.job_cluster",
    "commands.submit",
}
FREE_OF_RAY = {"anatomy", "archives", "decoding", "records", "preparation", "augment", "models", "tasks"} | {
    *("datasets", "prediction", "recipes"),
}
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 350, 60, 6


class Import(NamedTuple):
    """One import: who, at which line, what. Names are dotted and without the package's own."""

    importer: str
    line: int
    imported: str


def sources() -> dict[str, str]:
    """Module name without the package's -> source text."""
    return {_name(path): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports_in(modules: dict[str, str]) -> Iterator[Import]:
    """Every import of every module, those inside functions and under TYPE_CHECKING too."""
    for importer, text in modules.items():
        yield from imports_of(importer, text)


@cache
def imports_of(importer: str, text: str) -> tuple[Import, ...]:
    """The imports of one module; most tests ask for the same two hundred."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [Import(importer, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno}: a relative import hides what it imports"
            found += [Import(importer, node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return tuple(found)


def own_imports(modules: dict[str, str]) -> list[Import]:
    """Imports of the package's own modules, by module name; of the package itself (its version) there is nothing to say."""
    found = []
    for importer, line, imported in imports_in(modules):
        if imported.split(".")[0] == PACKAGE:
            name = imported.removeprefix(PACKAGE).removeprefix(".")
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name:
                found.append(Import(importer, line, name))
    return found


def room(module: str) -> str:
    """The room of a module. What a task makes of predictions, `tasks/<task>/findings/`, stands on the layer of findings/."""
    parts = module.split(".")
    return "findings" if parts[0] == "tasks" and parts[2:3] == ["findings"] else parts[0]


def layer(module: str) -> int:
    """Place of a module's room in LAYERS."""
    return LAYERS.index(room(module))


def reversed_imports(modules: dict[str, str]) -> list[str]:
    """Imports against the direction, one line of text each."""
    return [
        f"{importer}:{line} imports {imported}, which is below it"
        for importer, line, imported in own_imports(modules)
        if importer and layer(imported) > layer(importer)
    ]


def cycle(modules: dict[str, str]) -> list[str]:
    """The modules of one import cycle, or none."""
    below: dict[str, set[str]] = {name: set() for name in modules}
    for importer, _, imported in own_imports(modules):
        if imported != importer:
            below[importer].add(imported)
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for next_name in sorted(below[name]):
            if found := visit(next_name, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(modules) if (found := visit(name, []))), [])


def ray_importers(modules: dict[str, str]) -> set[str]:
    return {found.importer for found in imports_in(modules) if found.imported.split(".")[0] == "ray"}


def over_budget(modules: dict[str, str]) -> list[str]:
    """Files, functions and parameter lists that are longer than the eye likes."""
    found = []
    for module, text in modules.items():
        lines = text.count("\n")
        if lines > MAX_FILE:
            found.append(f"{module}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION:
                    found.append(f"{module}.{node.name}: {length} lines")
                given = node.args
                names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                if count > MAX_PARAMETERS and module.split(".")[0] != "cli":
                    found.append(f"{module}.{node.name}: {count} parameters")
    return found


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_every_module_has_its_layer():
    assert {name.split(".")[0] for name in sources() if name} == set(LAYERS)


def test_imports_go_one_way():
    assert reversed_imports(sources()) == []


def test_there_is_no_import_cycle():
    assert cycle(sources()) == []


def test_ray_is_imported_where_the_plan_says_and_nowhere_else():
    assert ray_importers(sources()) <= RAY_MODULES


def test_the_budget_for_the_eye_is_kept():
    assert over_budget(sources()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from boneage_ray.scoring.score import score_archive",
        "import boneage_ray.scoring.score",
        "from boneage_ray.scoring import score",
        "def late():\n    from boneage_ray.scoring.score import score_archive",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from boneage_ray import scoring",
    ],
)
def test_a_planted_reverse_import_is_caught_and_named(planted):
    modules = sources()
    modules["decoding.decode"] += f"\n{planted}\n"
    (told,) = reversed_imports(modules)
    assert told.startswith("decoding.decode:")
    assert "imports scoring" in told


def test_a_task_is_trained_without_what_becomes_of_its_predictions():
    modules = sources()
    assert room("tasks.age.task") == "tasks"
    assert room("tasks.age.findings.rows") == "findings"
    modules["tasks.age.task"] += "\nfrom boneage_ray.tasks.age.findings.rows import add_age\n"
    (found,) = reversed_imports(modules)
    assert found.startswith("tasks.age.task:")


def test_a_planted_cycle_inside_one_layer_is_caught():
    modules = sources()
    modules["preparation.enhance"] += "\nfrom boneage_ray.preparation.prepare import ImageConfig\n"
    assert reversed_imports(modules) == []
    first, second, again = cycle(modules)
    assert {first, second} == {"preparation.enhance", "preparation.prepare"}
    assert again == first


def test_a_planted_ray_import_is_caught():
    modules = sources()
    modules["tasks.age.task"] += "\ndef late():\n    import ray.data\n"
    assert ray_importers(modules) - RAY_MODULES == {"tasks.age.task"}


def test_planted_excess_is_caught():
    long = "def f(a, b, c, d, e, f, g):\n" + "    pass\n" * 60
    assert over_budget({"tasks.age": long + "#\n" * 290}) == [
        "tasks.age: 351 lines",
        "tasks.age.f: 61 lines",
        "tasks.age.f: 7 parameters",
    ]


def test_no_two_test_files_share_a_name():
    # Tests are not packages here: pytest refuses the second module of a name, and which is second hangs on the order.
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_most_of_the_package_runs_without_ray():
    names = [name for name in sources() if name and room(name) in FREE_OF_RAY]
    assert len(names) > 30
    told = "import sys\n" + "".join(f"import {PACKAGE}.{n}\n" for n in names) + "print('ray' in sys.modules)"
    assert run(told) == "False\n"


def test_preparing_listing_and_naming_a_recipe_need_no_torch():
    told = "import sys\nfrom boneage_ray import recipes\nfrom boneage_ray.preparation import shards\n"
    told += "from boneage_ray.archives import open\nfrom boneage_ray.evaluation import data_report\n"
    assert run(told + "print(sorted({'torch', 'ray', 'timm', 'kornia'} & set(sys.modules)))") == "[]\n"


def test_the_driver_of_scoring_needs_no_torch():
    # It stays for hours, and torch takes 450 MB of it.
    told = "import sys\nfrom boneage_ray.scoring import score, triage\nfrom boneage_ray.commands import score_report\n"
    told += "from boneage_ray.findings.task_findings import findings_of\nfrom boneage_ray.prediction import routing\n"
    told += "from boneage_ray.records.schema import empty_result\n"
    told += "both = routing.resolve_all(['builtin:hand', 'builtin:cephalogram'], route=True)\n"
    told += "row = empty_result() | {'flags': ['sex_unknown']}\n"
    told += "print([findings_of(models.recipe).doubt(row) is not None for models in both])\n"
    assert run(told + "print('torch' in sys.modules)") == "[True, True]\nFalse\n"


HEAVY = "print('heavy:', sorted({'torch', 'ray', 'timm', 'kornia', 'pyarrow', 'cv2'} & set(sys.modules)))"


def test_importing_the_package_is_light():
    assert run(f"import sys, boneage_ray\n{HEAVY}") == "heavy: []\n"


def test_help_is_light_for_boneage_and_each_of_its_commands():
    told = (
        "import sys\nfrom boneage_ray.cli import app, main\n"
        "names = [c.name or c.callback.__name__ for c in app.registered_commands]\n"
        "codes = [main([*name, '--help']) for name in [[], *([n] for n in names)]]\n"
        "print('codes:', set(codes), len(codes) > 9)\n"
    )
    lines = run(told + HEAVY).splitlines()
    assert "Usage: boneage [OPTIONS] COMMAND [ARGS]..." in "\n".join(lines)
    assert lines[-2:] == ["codes: {0} True", "heavy: []"]
