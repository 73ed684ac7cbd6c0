"""Model cards: what they say of a built-in model, of a trained one, and how one is written anew."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from builtin_models import HAND, facts, install

from boneage_ray import bundle, storage
from boneage_ray.commands.builtin_card import Measured, card, measured_figures, read_facts, rewrite_card
from boneage_ray.errors import UsageError
from boneage_ray.model_card import CardTable, Chapter, intervals_chapter, markdown, trained_card
from boneage_ray.tasks.age.validated import validated_table

JOB = Path(__file__).parents[2] / "jobs" / "make_builtin.py"


@pytest.fixture
def table(tmp_path):
    """200 held-out cases in two folds: girls of 10 years, read 6 months too old, boys of 15, read 12 months too young."""
    lines = [f"{k},{'FM'[k % 2]},{(120, 180)[k % 2]},{(126, 168)[k % 2]},{k % 4 // 2}" for k in range(200)]
    place = tmp_path / "out-of-fold.csv"
    place.write_text("record_id,sex,true_months,predicted_months,fold\n" + "\n".join(lines))
    return str(place)


STABILITY = {
    "cases": 2,
    "from_original": 2,
    "not_scored": 0,
    "changes": [
        {
            "group": "mirror",
            "change": "left and right exchanged",
            "n": 2,
            "refused": {},
            "moved": {"age_months": {"mean": 0.5, "mean_abs": 1.5, "p95_abs": 2.0, "largest_abs": 2.5}},
        }
    ],
}


def test_a_built_in_card_says_errors_groups_coverage_and_stability(tmp_path, table):
    storage.write_json(str(tmp_path / "metrics.json"), {"stability": STABILITY})
    told = facts(
        tmp_path,
        "hand",
        rejected=[{"what": "heads", "value": "200 of 200", "command": "python measure.py"}],
        stability_of="By a network of one fold.",
    )
    analysis = measured_figures(HAND, table, str(tmp_path / "metrics.json"))
    text = card(read_facts(told), Measured(analysis), HAND)
    for line in (
        "| mean absolute error | 9.0 months (8.6 to 9.4) |",
        "| girls | 100 | 6.0 | 6.0 to 6.0 | +6.0 |",
        "| boys | 100 | 12.0 | 12.0 to 12.0 | -12.0 |",
        "Error of girls minus error of boys: -6.00 months (-6.00 to -6.00): a difference is shown.",
        "| all | 200 | 100.0% (98.1% to 100.0%) | 0.0 |",
        "## Stability\n\nBy a network of one fold.",
        "| left and right exchanged | 2 | 1.5 | 2.0 | 0 |",
        "| heads | 200 of 200 |",
        "No gate by pixels",
    ):
        assert line in text
    assert "nan" not in text.lower()


def test_a_table_without_folds_has_no_coverage_and_few_cases_say_so(tmp_path):
    place = tmp_path / "few.csv"
    place.write_text("record_id,sex,true_months,predicted_months\n1,F,100,110\n2,F,50,40\n3,F,30,30\n")
    analysis = measured_figures(HAND, str(place), None)
    assert analysis["coverage"] is None
    text = card(read_facts(facts(tmp_path, "hand")), Measured(analysis), HAND)
    assert "Not enough cases to compare girls (3) and boys (0)." in text
    assert "| girls | 3 | not enough cases (3 of 10) | - | - |" in text
    assert "## Stability\n\nNot measured." in text
    assert "nan" not in text.lower()


def test_a_file_without_stability_is_refused(tmp_path):
    storage.write_json(str(tmp_path / "metrics.json"), {"n": 3})
    with pytest.raises(UsageError, match=r"holds no stability: give metrics\.json of `boneage evaluate --stability`"):
        measured_figures(HAND, None, str(tmp_path / "metrics.json"))


def test_a_card_is_written_anew_and_nothing_else_changes(tmp_path, table):
    folder = install(tmp_path) / "hand"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rewrite_card(str(folder), read_facts(facts(tmp_path, "hand", version="4")), table)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"MODEL_CARD.md", "manifest.json", "about.json"}
    manifest = json.loads(after["manifest.json"])
    assert manifest["sha256"]["MODEL_CARD.md"] == hashlib.sha256(after["MODEL_CARD.md"]).hexdigest()
    told = json.loads(after["about.json"])
    assert (told["version"], told["manifest_sha256"]) == ("4", hashlib.sha256(after["manifest.json"]).hexdigest())
    assert bundle.load(str(folder)).sha256 == told["manifest_sha256"]
    assert after["MODEL_CARD.md"].startswith(b"# hand, version 4\n")


def test_the_job_writes_a_card_anew(tmp_path):
    root = install(tmp_path)
    given = ["hand", "--facts", facts(tmp_path, "hand", version="5"), "--root", str(root), "--card-only"]
    done = subprocess.run([sys.executable, str(JOB), *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (root / "hand" / "MODEL_CARD.md").read_text().startswith("# hand, version 5\n")


def test_a_trained_card_shows_the_validation_split_by_sex_and_age():
    sexes = ["F"] * 12 + ["M"] * 3
    found = validated_table([*sexes, None], [100.0] * 15 + [float("nan")], [104.0] * 12 + [90.0] * 3 + [50.0])
    assert found["rows"] == [
        ["all", "15", "5.2", "3.9 to 6.5", "+1.2"],
        ["girls", "12", "4.0", "4.0 to 4.0", "+4.0"],
        ["boys", "3", "not enough cases (3 of 10)", "-", "-"],
        ["true age 8-10 y", "15", "5.2", "3.9 to 6.5", "+1.2"],
    ]
    assert validated_table(["F"], [float("nan")], [10.0]) is None
    text = trained_card(HAND, {"val_mae_months": 5.21, "validated": found, "train_cases": 70}, {}, None)
    for line in (
        "The model learnt from 70 cases",
        "| mean absolute error | 5.2 months |",
        "| girls | 12 | 4.0 | 4.0 to 4.0 | +4.0 |",
        "The model states no calibrated interval.",
        "`boneage evaluate --stability`",
        "Research on and with bone age",
    ):
        assert line in text
    assert "val_" not in text.partition("## Recipe")[0]


def test_intervals_are_told_for_each_group():
    group = {"sex": "M", "from": 168.0, "to": None, "of": "range", "cases": 81, "low": -15.9, "high": 22.41}
    found = intervals_chapter({"coverage": 0.9, "fitted_on": "81 cases", "age_intervals": [group]})
    assert found.tables[0].rows == [["boys", "14 years and more", "81", "-15.9 to +22.4"]]
    assert "90% of the true ages" in found.text[0]


def test_cells_cannot_break_a_table():
    text = markdown("A", "b.", [Chapter("C", [], [CardTable(["x|y", "n"], [["1\n2", "3"]])])])
    assert "| x\\|y | n |\n| --- | ---: |\n| 1 2 | 3 |\n" in text
