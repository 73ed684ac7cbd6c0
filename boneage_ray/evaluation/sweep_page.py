"""The page of a sweep: each trial in a line, and what each setting did."""

from __future__ import annotations

import math
from collections.abc import Sequence

from boneage_ray.evaluation import figures
from boneage_ray.evaluation.page import Number, Page, PagePicture, PageStatus, PageTable, Section, render_page, shown
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.training.sweep import value_in_words
from boneage_ray.training.sweep_run import TrialResult


def sweep_page(recipe: Recipe, figure: str, order: Sequence[TrialResult], command: str) -> str:
    """`order`: the trials, the best first."""
    names = list(order[0].trial.settings)
    rows = [_row(result, names) for result in order]
    table = PageTable(["trial", *names, "status", "epochs", f"lowest {figure}"], rows, text_columns=len(names) + 2)
    scored = [result for result in order if not math.isinf(result.best)]
    pictures = [
        PagePicture(
            figures.tried(
                [(result.trial.settings[name], result.best, result.status == "finished") for result in scored],
                name,
                figure,
            ),
            f"The lowest {figure} of each trial over {name}",
            f"{name}: filled, trials that ran to their end; open, those that were stopped early.",
        )
        for name in names
    ]
    failed = [f"Trial {result.trial.number} failed: {result.why}." for result in order if result.why]
    page = Page(
        title=f"Sweep of {recipe.name}",
        facts={"Recipe": recipe.name, "Trials": str(len(order)), "Figure": f"{figure} of the validation split"},
        status=PageStatus(
            "caution" if failed else "good",
            f"Trial {order[0].trial.number} is the best of {len(order)}",
            [
                "The validation split chose it: its figure is too good by chance. Evaluate it on other cases.",
                *failed,
            ],
        ),
        numbers=[Number(f"Lowest {figure}", shown(order[0].best, 3), f"trial {order[0].trial.number}")],
        sections=[Section("Trials", tables=[table], command=command), Section("Settings", pictures=pictures)],
        data={"command": command},
    )
    return render_page(page)


def _row(result: TrialResult, names: Sequence[str]) -> list[str]:
    settings = [value_in_words(result.trial.settings[name]) for name in names]
    best = "-" if math.isinf(result.best) else shown(result.best, 3)
    return [str(result.trial.number), *settings, result.status, str(result.epochs), best]
