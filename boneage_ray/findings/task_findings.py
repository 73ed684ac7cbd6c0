"""What becomes of a task's predictions: result rows, explanations and evaluations, behind one abstract class.

Commands, scoring and serving work with `TaskFindings` and know no task. No torch here: implementations import what predicts,
draws or computes when it is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from boneage_ray.errors import UsageError
from boneage_ray.preparation.split import Split
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.runs import Run
from boneage_ray.tasks.kind import named_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boneage_ray.datasets.load import PreparedData
    from boneage_ray.findings.explanation import Explanation
    from boneage_ray.model_card import Chapter
    from boneage_ray.prediction.members import Models
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.prediction.rows import Add, Loaded
    from boneage_ray.preparation.geometry import Floats
    from boneage_ray.records.schema import Row
    from boneage_ray.tasks.task import Columns


@dataclass(frozen=True)
class ScoredFiles:
    """Where files go that a row cannot hold: `source` is what is scored, `write` takes a name below OUT and the bytes.

    `by_hash`: such a file is named by the SHA-256 of its radiograph, not by its path.
    """

    source: str
    write: Callable[[str, bytes], None]
    by_hash: bool = False


@dataclass(frozen=True)
class EvaluationOrder:
    """What `boneage evaluate` was asked for: models, the prepared data of each of their images, and the flags.

    `facts` and `command` stand on the page. `compute`: device and precision, once the cluster is known. `learnt`: how many of the
    cases the models learnt from (evaluation/learnt.py).
    """

    models: Models
    datasets: Sequence[PreparedData]
    split: Split
    out: str
    command: str
    facts: Mapping[str, str]
    compute: RunDevice = RunDevice()  # noqa: RUF009  immutable
    open_test: bool = False
    max_mae: float | None = None
    coverage: float | None = None
    stability: bool = False
    similar: bool = False
    learnt: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Evaluated:
    """The figures for the terminal; `missed`: in words, the gate that they miss, if one was set."""

    figures: dict[str, Any]
    missed: str | None = None


class Measure(NamedTuple):
    """What moves when a radiograph is changed: in words, and its unit ("share": 0 or 1), and how many decimals are shown."""

    words: str
    unit: str
    digits: int = 1


class Doubt(NamedTuple):
    """How sure a scored row is: `value`, more is less certain, in the task's own measure; `because`: what makes it uncertain."""

    value: float
    because: tuple[str, ...] = ()


class TaskFindings(ABC):
    """Abstract; its concrete classes are final, one in `tasks/<task>/findings/`.

    `noun`: what a scored input has, such as an age. `title`: of the page of `boneage score`. `not_served`: why the service does
    not offer such a model, with what to do instead; None where it does. `measures`: what `moved` tells, the most important first.
    """

    noun: ClassVar[str]
    title: ClassVar[str]
    not_served: ClassVar[str | None] = None
    measures: ClassVar[Mapping[str, Measure]] = {}

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def adder(self, files: ScoredFiles | None = None) -> Add:
        """What writes a prediction into a result row; `files` takes what a row cannot hold, None drops it."""

    @abstractmethod
    def warm_up_image(self) -> NDArray[np.uint8]:
        """A synthetic radiograph (H, W) of the kind that the model is for."""

    @abstractmethod
    def largest_difference(self, before: Columns, after: Columns) -> float:
        """How far two predictions of the same images are apart at most, in the task's unit; NaN if that cannot be decided."""

    @abstractmethod
    def explain(self, predictor: Predictor, case: Loaded, data: bytes) -> Explanation:
        """One loaded input, and its bytes, to its result row and a picture of what the row rests on."""

    @abstractmethod
    def evaluate(self, run: Run, order: EvaluationOrder) -> Evaluated:
        """Write predictions, metrics and a page below OUT."""

    def check_evaluation(self, run: Run, order: EvaluationOrder) -> None:
        """Raise `UsageError`, before anything is written, for an order that this task cannot follow."""
        if order.max_mae is not None:
            raise UsageError("--max-mae concerns ages; this model predicts none")
        if order.similar:
            raise UsageError("--similar concerns ages; this model predicts none")
        if order.stability and not self.measures:
            raise UsageError(f"--stability: how far {self.noun} move is not measured")

    def moved(self, before: Row, after: Row, back: Floats) -> dict[str, float]:
        """How far a scored row moved when its radiograph was changed, by the names of `measures`.

        `back`: the (2, 3) matrix that takes (x, y) in pixels of the changed image to those of the unchanged one.
        """
        raise NotImplementedError(f"{self.noun} have no measures")

    def calibrated_out_of_fold(self, uri: str) -> dict[str, Any]:
        """calibration.json, from a file on predictions of cases that the model had not learnt from. Raises `UsageError`."""
        raise UsageError(f"{uri}: a {self.noun} has nothing to calibrate")

    def measured_out_of_fold(self, uri: str) -> dict[str, Any]:
        """What of an evaluation's metrics.json such a file tells, for the model card; by default nothing."""
        return {}

    def card_chapters(self, analysis: Mapping[str, Any]) -> list[Chapter]:
        """The chapters of the model card on what an evaluation found (its metrics.json, or parts of it)."""
        return []

    def check_coverage(self, models: Models, coverage: float | None) -> None:
        """Raise `UsageError`, before anything is written, for a coverage of intervals that the models cannot give."""
        if coverage is not None:
            raise UsageError(f"--coverage {coverage:g} concerns the intervals of ages; this model predicts none")

    def doubt(self, row: Row) -> Doubt | None:
        """How sure a scored row is; None where the task has no measure. A row without `because` counts as certain."""
        return None

    def after_score(self, source: str, out: str, by_hash: bool = False) -> str | None:
        """What to do with the files that were scored into OUT; None where the next step is to serve the model.

        `by_hash`: they are named as in `ScoredFiles`.
        """
        return None


def findings_of(recipe: Recipe) -> TaskFindings:
    """What becomes of the predictions of a recipe's models. Raises `UsageError` where there are none."""
    if not recipe.task_kind.findings:
        raise UsageError(
            f"a model of {recipe.name} predicts nothing: it holds first weights for the training of others, "
            "--set model.backbone.weights=MODEL/weights.safetensors"
        )
    findings: TaskFindings = named_class(recipe.task_kind.findings)(recipe)
    return findings
