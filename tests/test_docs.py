"""README.md and docs/: links lead somewhere, paths and names exist, commands and flags are those of the program, and the tables
of reasons, flags, columns, exit codes, variables, recipes and rooms are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import typer

from boneage_ray.archives.columns import NAMES
from boneage_ray.cli import app, main
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.errors import ExitCode, Reason, Step
from boneage_ray.recipes import RECIPES
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.wording import known_keys
from boneage_ray.records.flags import FLAG_MEANINGS
from boneage_ray.records.schema import result_schema
from boneage_ray.runtime.metrics import METRICS, SCORE_STEPS, TRAIN_PHASES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "boneage_ray"
README = ROOT / "README.md"
PAGES = [README, ROOT / "cluster" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = {"boneage_ray", "tests", "docs", "jobs", "cluster", ".ci"}
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
# Where rows and records get their flags from.
FLAGGING_ROOMS = ("anatomy", "decoding", "preparation", "records", "prediction", "tasks")
INTERNAL_VARIABLES = {"BONEAGE_COMMAND", "BONEAGE_PASSED"}


class Page(NamedTuple):
    """A page in pieces: what is prose, the code in it between backticks, and the lines of its shell blocks."""

    prose: str
    spans: list[str]
    shell: list[str]


def page(text: str) -> Page:
    """The pieces of a Markdown text."""
    shell = [block for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if kind == "bash"]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    return Page(re.sub(r"`[^`\n]+`", "`", prose), re.findall(r"`([^`\n]+)`", prose), lines)


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown text's headings, as GitHub names them."""
    found: list[str] = []
    for title in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def links(text: str) -> list[str]:
    """The targets of links and pictures that lead into the repository."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", page(text).prose) if "://" not in to]


def broken_links(place: Path, text: str) -> list[str]:
    """Those links of a page that lead nowhere."""
    broken = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = (place.parent / path).resolve() if path else place
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (anchor and anchor not in anchors(text if target == place else target.read_text("utf-8"))):
            broken.append(link)
    return broken


def lost_paths(text: str) -> list[str]:
    """Code between backticks that looks like a path of the repository, perhaps with ::NAME, but is not there."""
    lost = []
    for span in page(text).spans:
        path, _, name = span.partition("::")
        first = path.partition("/")[0]
        looks = path.endswith(".py") or ("/" in path and first in FOLDERS | ROOMS)
        if not looks or not re.fullmatch(r"[\w./*-]+", path):
            continue
        found = [file for base in (ROOT, PACKAGE, ROOT / "tests" / "benchmarks") for file in base.glob(path)]
        if not found or (name and name not in defined_in(found[0])):
            lost.append(span)
    return lost


@cache
def defined_in(path: Path) -> set[str]:
    """What a module defines: functions, classes, constants, and CLASS.MEMBER."""
    return set(_names(ast.parse(path.read_text("utf-8")).body))


def _names(body: list[ast.stmt], before: str = "") -> list[str]:
    names: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(before + node.name)
            if isinstance(node, ast.ClassDef):
                names += _names(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            places = [place for target in targets for place in ast.walk(target)]
            names += [before + place.id for place in places if isinstance(place, ast.Name)]
    return names


def commands(text: str) -> list[list[str]]:
    """Every command of a page, in words without brackets: those of shell blocks, and code between backticks."""
    found = page(text)
    parts = [part for line in found.shell for part in re.split(r"&&|\||;|\s&(?:\s|$)|\s#\s", line)]
    return [re.sub(r"[\[\]]", " ", part).split() for part in (*parts, *found.spans) if part.strip()]


@cache
def program() -> dict[str, set[str]]:
    """Command -> its flags, as the program has them; "" for the options before a command."""
    group = typer.main.get_command(app)
    flags = {
        name: {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        for name, command in group.commands.items()
    }
    return {name: known | {"--help"} for name, known in flags.items()} | {"": {"--help", "--version"}}


def wrong_commands(text: str) -> list[str]:
    """Commands of a page that there are not, with flags that they have not, or that set a field no recipe has."""
    wrong = []
    every = set().union(*program().values())
    for words in commands(text):
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        fields = [words[k + 1].strip("'").partition("=")[0] for k, word in enumerate(words[:-1]) if word == "--set"]
        if words[0] == "boneage":
            name = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
            known = program().get(name)
        elif words[0] == "python" and words[1].endswith(".py"):
            known = set(re.findall(r"--[a-z-]+", (ROOT / words[1]).read_text("utf-8")))
        else:
            known = every if words[0].startswith("--") else flags
        if known is None or not flags <= known or not all(map(is_field, fields)):
            wrong.append(" ".join(words))
    return wrong


def is_field(key: str) -> bool:
    """Whether `--set` takes this key."""
    return re.sub(r"^stage(s\.\d+)?\.", "stages.", key) in known_keys(Recipe) or key == "k"


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, as cells, without their header."""
    below = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.M)[1]
    section = re.split(r"^#", below, maxsplit=1, flags=re.M)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    ruled = [k for k, row in enumerate(rows) if set(row[0]) <= set("-") and row[0]]
    return [row for k, row in enumerate(rows) if k not in ruled and k + 1 not in ruled]


def coded(cells: list[str]) -> list[str]:
    """What stands between backticks in some cells, in order."""
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


def first_column(name: str, heading: str) -> list[str]:
    """What stands between backticks in the first column of the tables below a heading of a page of docs/."""
    return coded([row[0] for row in table((ROOT / "docs" / name).read_text("utf-8"), heading)])


def flags_in_code() -> set[str]:
    """Flags as the code adds them: a word alone in a tuple or list, beside others that are unpacked; and all of cvm_*."""
    found: set[str] = set()
    for path in (path for room in FLAGGING_ROOMS for path in (PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Tuple | ast.List):
                own = [item for item in node.elts if not isinstance(item, ast.Starred)]
                words = [item.value for item in own if isinstance(item, ast.Constant)] if len(own) == 1 else []
            else:
                words = [node.value] if isinstance(node, ast.Constant) and str(node.value).startswith("cvm_") else []
            found |= {
                word
                for word in words
                if isinstance(word, str) and re.fullmatch(r"[a-z]+(_[a-z]+)+|inverted|advanced|delayed", word)
            }
    figures = {word for word in found if word.startswith("val_")}  # of training, named in a tuple of their own
    return found - figures - set(result_schema().names)


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def place(request):
    """One page after the other."""
    return request.param


def test_the_readme_fits_and_shows_the_two_commands_at_once():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:20])
    assert "pip install -e . && boneage demo" in first
    assert "pip install -e '.[test]' && pytest" in first


def test_every_link_leads_somewhere(place):
    assert broken_links(place, place.read_text("utf-8")) == []


def test_every_page_and_picture_is_reached_from_the_readme():
    reached, waiting = {README}, [README]
    while waiting:
        here = waiting.pop()
        if here.suffix == ".md":
            targets = {(here.parent / link.partition("#")[0]).resolve() for link in links(here.read_text("utf-8"))}
            waiting += targets - reached
            reached |= targets
    assert sorted(path.name for path in (ROOT / "docs").iterdir() if path not in reached) == []


def test_every_path_and_name_is_there(place):
    assert lost_paths(place.read_text("utf-8")) == []


def test_every_command_flag_and_field_is_one_of_the_program(place):
    assert wrong_commands(place.read_text("utf-8")) == []


def test_help_runs_for_every_command_that_a_page_names(capsys):
    named = {
        words[1] for path in PAGES for words in commands(path.read_text("utf-8")) if words[0] == "boneage" and words[1:]
    }
    names = {name for name in named if not name.startswith("-")}
    assert names == program().keys() - {""}, "every command is named on a page"
    for name in sorted(names):
        assert main([name, "--help"]) == 0
        assert f"Usage: boneage {name}" in capsys.readouterr().out


def test_the_reason_codes_are_those_of_the_code():
    named = first_column("results.md", "Reason codes")
    assert sorted(named) == sorted(get_args(Reason)) == sorted(MEANINGS)
    steps = {
        step
        for row in table((ROOT / "docs" / "results.md").read_text("utf-8"), "Reason codes")
        for step in row[1].split(", ")
    }
    assert steps == set(get_args(Step))


def test_the_flags_are_those_of_the_code():
    named = first_column("results.md", "Flags")
    assert len(named) == len(set(named))
    assert set(named) == flags_in_code()
    assert list(FLAG_MEANINGS) == named


def test_the_columns_are_those_of_the_result_row():
    assert first_column("results.md", "The result row") == result_schema().names


def test_the_exit_codes_are_those_of_the_code():
    rows = table((ROOT / "docs" / "results.md").read_text("utf-8"), "Exit codes")
    assert [int(row[0]) for row in rows] == [int(code) for code in ExitCode]


def test_the_columns_of_label_tables_are_those_that_are_read():
    rows = table((ROOT / "docs" / "inputs.md").read_text("utf-8"), "Labels")
    assert [tuple(coded(row[1:2])) for row in rows] == list(NAMES.values())


def test_the_environment_variables_are_those_of_the_code():
    read = {name for path in PACKAGE.rglob("*.py") for name in re.findall(r"BONEAGE_[A-Z_]+", path.read_text("utf-8"))}
    assert set(first_column("running.md", "Environment variables")) == read - INTERNAL_VARIABLES


def test_the_metrics_and_the_alerts_are_those_of_the_code():
    rows = table((ROOT / "docs" / "monitoring.md").read_text("utf-8"), "Metrics")
    named = {coded(row[:1])[0]: (row[1], coded(row[2:3])) for row in rows}
    assert named == {m.name: (type(m).__name__.lower(), list(m.labels)) for m in METRICS}
    meanings = {coded(row[:1])[0]: coded(row[3:]) for row in rows}
    assert meanings["boneage_score_seconds"] == list(SCORE_STEPS)
    assert meanings["boneage_train_seconds"] == list(TRAIN_PHASES)
    rules = (ROOT / "cluster" / "dashboards" / "rules.yaml").read_text("utf-8")
    assert set(first_column("monitoring.md", "Prometheus, Grafana and alerts")) == {
        *re.findall(r"alert: (\w+)", rules),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "cluster" / "dashboards").iterdir()),
    }


def test_every_recipe_and_every_command_has_its_line():
    assert sorted(first_column("recipes.md", "The recipes")) == sorted(recipe.name for recipe in RECIPES)
    lines = first_column("running.md", "Commands")
    assert sorted(line.split()[1] for line in lines) == sorted(program().keys() - {""})


def test_every_room_has_its_line():
    named = [name.removesuffix("/") for name in first_column("architecture.md", "Rooms") if name.endswith("/")]
    assert sorted(named) == sorted(ROOMS)


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("[a](docs/nowhere.md)", ["docs/nowhere.md"]),
        ("[a](docs/results.md#no-such-heading)", ["docs/results.md#no-such-heading"]),
        ("# One: two\n[a](#one-two) [b](#one--two)", ["#one--two"]),
        ("```\n[a](nowhere)\n```\n`[b](nowhere)`\n[c](https://example.org/nowhere)", []),
    ],
)
def test_a_planted_broken_link_is_caught(text, caught):
    assert broken_links(README, text) == caught


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("`boneage_ray/nowhere.py`", ["boneage_ray/nowhere.py"]),
        ("`errors.py::Nothing`", ["errors.py::Nothing"]),
        ("`tasks/nowhere/`", ["tasks/nowhere/"]),
        ("`errors.py::Reason` `jobs/*.yaml` `errors.py::BoneageError.exit_code` `masks/ID.png`", []),
    ],
)
def test_a_planted_lost_path_is_caught(text, caught):
    assert lost_paths(text) == caught


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("`boneage scores A`", ["boneage scores A"]),
        ("```bash\nboneage score A \\\n  --labels B && boneage recipes\n```", ["boneage score A --labels B"]),
        ("`--set image.sise=3`", ["--set image.sise=3"]),
        ("`--no-such-flag`", ["--no-such-flag"]),
        ("`python tests/benchmarks/scoring.py --works DIR`", ["python tests/benchmarks/scoring.py --works DIR"]),
        ("`boneage prepare A [--labels B]` `boneage --help` `--set stages.0.lr=1` `pytest -m fast`", []),
    ],
)
def test_a_planted_wrong_command_is_caught(text, caught):
    assert wrong_commands(text) == caught
