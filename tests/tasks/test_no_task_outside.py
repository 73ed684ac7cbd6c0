"""Only tasks/ knows which tasks there are: the rest of the package asks a task's kind, its Task and its TaskFindings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from boneage_ray.findings.task_findings import TaskFindings
from boneage_ray.tasks.kind import named_class
from boneage_ray.tasks.known import TASKS
from boneage_ray.tasks.task import Task

ROOT = Path(__file__).parents[2] / "boneage_ray"
NAMES = {name for kind in TASKS for name in (kind.name, kind.model_name)}
CONFIGS = {config.__name__ for kind in TASKS for config in (kind.config, kind.model)}
CLASSES = {place.partition(":")[2] for kind in TASKS for place in (kind.task, kind.findings) if place}
KINDS = {"AGE_TASK", "MASK_TASK", "CEPHALOGRAM_TASK", "VIEWS_TASK"}
# Properties that used to ask which task a model has.
ASKED = {"predicts_masks", "landmarks"}


def questions(text: str) -> list[str]:
    """Places of a source that ask which task it has to do with: `line: what`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare | ast.Match | ast.Subscript):
            about_kind = any(_is_kind(n) for n in ast.walk(node))
            words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            if about_kind and words & NAMES:
                found.append(f"{node.lineno}: compares a kind with {', '.join(sorted(words & NAMES))}")
        elif isinstance(node, ast.Name) and node.id in KINDS:
            found.append(f"{node.lineno}: names {node.id}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            named = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.args[1])}
            asked = named & (CONFIGS | CLASSES)
            found += [f"{node.lineno}: isinstance of {name}" for name in sorted(asked)]
        elif isinstance(node, ast.Attribute) and node.attr in ASKED:
            found.append(f"{node.lineno}: asks for .{node.attr}")
    return found


def _is_kind(node: ast.AST) -> bool:
    """A task's or model's kind; the flag --kind of `boneage phantoms` is another one."""
    if isinstance(node, ast.Name):
        return node.id in ("kind", "task_kind")
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
        return any(getattr(argument, "value", "") == "kind" for argument in node.args)
    if not isinstance(node, ast.Attribute) or node.attr not in ("kind", "task_kind"):
        return False
    return not _is_flag(node)


def _is_flag(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "arguments"


def test_nothing_outside_of_tasks_asks_for_a_task():
    outside = [path for path in sorted(ROOT.rglob("*.py")) if ROOT / "tasks" not in path.parents]
    assert len(outside) > 150
    asked = {str(path.relative_to(ROOT)): questions(path.read_text(encoding="utf-8")) for path in outside}
    assert {name: found for name, found in asked.items() if found} == {}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ('if recipe.task.kind == "age": pass', ["1: compares a kind with age"]),
        ('if recipe.model.kind in ("regressor", "hand-mask"): pass', ["1: compares a kind with hand-mask, regressor"]),
        ('x = {"mask": 1}[recipe.task.kind]', ["1: compares a kind with mask"]),
        ("x = recipe.kind and isinstance(task, (AgeTask, int))", ["1: isinstance of AgeTask"]),
        ("isinstance(recipe.task, CephalogramTaskConfig)", ["1: isinstance of CephalogramTaskConfig"]),
        ('kind = recipe.task.kind\nif kind == "age": pass', ["2: compares a kind with age"]),
        ('getattr(recipe.task, "kind") == "age"', ["1: compares a kind with age"]),
        ("recipe.task_kind is AGE_TASK", ["1: names AGE_TASK"]),
        ("isinstance(recipe.task, config.AgeTaskConfig)", ["1: isinstance of AgeTaskConfig"]),
        ("if models.predicts_masks: pass", ["1: asks for .predicts_masks"]),
        ('if arguments.kind == "hand": pass', []),
        ("if recipe.task_kind.joins: pass", []),
    ],
)
def test_a_planted_question_is_found(planted, found):
    assert questions(planted) == found


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.name)
def test_every_task_names_its_parts(kind):
    assert issubclass(named_class(kind.task), Task)
    assert not kind.findings or issubclass(named_class(kind.findings), TaskFindings)
    assert kind.config().kind == kind.name
    assert kind.model().kind == kind.model_name


def test_a_task_folder_holds_its_parts_and_nothing_is_listed_twice():
    folders = {path.parent.name for path in (ROOT / "tasks").glob("*/config.py")}
    assert folders == {kind.name for kind in TASKS}
    assert len(NAMES) == len({kind.name for kind in TASKS} | {kind.model_name for kind in TASKS})
    for place in (place for kind in TASKS for place in (kind.task, kind.findings) if place):
        assert place.split(".")[1:3][0] == "tasks"
