"""`boneage explain`: one radiograph, its result, and a picture of what the result rests on."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray import storage
from boneage_ray.archives.archive import asked
from boneage_ray.archives.read import read_input
from boneage_ray.commands.options import ReadingFlags
from boneage_ray.commands.words import known_reading, known_sex, model_places
from boneage_ray.errors import InputProblem, NoUsableInputError, UsageError
from boneage_ray.records.schema import Row
from boneage_ray.runtime.runs import Run, say


@dataclass(frozen=True)
class ExplainArguments:
    """Flags of `boneage explain`."""

    image: str
    model: str
    out: str
    sex: str | None = None
    pixel_spacing_mm: float | None = None
    reading: ReadingFlags = ReadingFlags()  # noqa: RUF009  immutable


def explain(run: Run, arguments: ExplainArguments) -> None:
    """The picture to OUT, the result to the terminal, and for a cephalogram every step of its stage before it."""
    sex = known_sex(arguments.sex)
    reading = known_reading(arguments.reading)
    if not arguments.out.lower().endswith(".png"):
        raise UsageError(f"--out {arguments.out}: a PNG is written, give a name that ends in .png")
    from boneage_ray import bundle
    from boneage_ray.findings.task_findings import findings_of
    from boneage_ray.prediction.members import resolve
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.prediction.rows import load_input
    from boneage_ray.preparation.isolated import DecoderPool

    models = resolve(model_places(arguments.model))
    if len(models.members) > 1:
        names = ", ".join(member.uri for member in models.members[:2])
        raise UsageError(f"--model {arguments.model} is an ensemble; explain one of its members, such as {names}")
    item = asked(storage.absolute(arguments.image), sex, arguments.pixel_spacing_mm)
    data = read_input(item)
    if isinstance(data, InputProblem):
        where = "" if item.uri in data.message else f"{item.uri}: "
        raise NoUsableInputError(f"{where}{data.message}")
    predictor = Predictor(bundle.load(models.members[0].uri))
    (image,) = models.scored_images(reading)
    with DecoderPool(image) as pool:
        case = load_input(item, data, pool.prepare)
    found = findings_of(models.recipe).explain(predictor, case, data)
    row = found.row
    if found.png is None:
        raise NoUsableInputError(f"{item.uri}: {row['status']} ({row['step']}: {row['reason']}): {row['message']}")
    storage.write_bytes(storage.absolute(arguments.out), found.png)
    for line in found.trace:
        say("", line)
    run.note(model_sha256=models.sha256)
    run.finish(_shown(row), f"Picture: {arguments.out}")


def _shown(row: Row) -> Row:
    """What of a result row a person wants to see; what is not known is left out."""
    names = ("age_months", "stages", "cvm_stage", "cvm_typical", "cvm_probabilities", "flags", "message")
    shown = {name: row[name] for name in names if row[name] not in (None, [], {})}
    if row["landmarks"]:
        shown = {"landmarks": len(row["landmarks"]), **shown}
    return shown or {"status": row["status"]}
