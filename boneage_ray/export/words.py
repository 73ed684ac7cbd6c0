"""What a result row says, in words for radiologists: the text of a picture, a report's conclusion, a cell of a table."""

from __future__ import annotations

from boneage_ray.anatomy.growth import years_and_months
from boneage_ray.records.schema import Row

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS. For research, not a medical device. Unverified."


def has_findings(row: Row) -> bool:
    """Whether a row holds what can be reported: a bone age, landmarks or a cervical stage."""
    return row["status"] == "scored" and (
        row["age_months"] is not None or bool(row["landmarks"]) or row["cvm_stage"] is not None
    )


def interval_in_words(row: Row) -> str:
    """The interval of the bone age with its coverage, such as "7 y 2 m to 9 y 4 m, 90 %"; empty where there is none."""
    low, high, coverage = row["age_low_months"], row["age_high_months"], row["interval_coverage"]
    if low is None or high is None:
        return ""
    share = "" if coverage is None else f", {coverage:.0%}".replace("%", " %")
    return f"{years_and_months(max(low, 0.0))} to {years_and_months(high)}{share}"


def age_in_words(row: Row) -> str:
    """The bone age with its interval, such as "8 y 3 m (7 y 2 m to 9 y 4 m, 90 %)"; empty where there is none."""
    if row["age_months"] is None:
        return ""
    interval = interval_in_words(row)
    return f"{signed_years_and_months(row['age_months'])}{f' ({interval})' if interval else ''}"


def signed_years_and_months(months: float) -> str:
    """An age in years and months, also below zero, where a model goes beyond what there is.

    >>> signed_years_and_months(99.4), signed_years_and_months(-2.0)
    ('8 y 3 m', '-0 y 2 m')
    """
    return f"{'-' if round(months) < 0 else ''}{years_and_months(abs(months))}"


def findings_in_words(row: Row) -> list[str]:
    """Every finding of a row, one line each."""
    lines = []
    if row["age_months"] is not None:
        lines.append(f"Bone age {age_in_words(row)}")
        sex = {"F": "female", "M": "male", None: "unknown"}[row["sex"]]
        lines.append(f"Sex that the bone age is predicted for: {sex}")
    if row["chronological_age_months"] is not None:
        lines.append(f"Chronological age {years_and_months(row['chronological_age_months'])}")
    if row["age_difference_months"] is not None:
        lines.append(f"Bone age minus chronological age {row['age_difference_months']:+.0f} months")
    if row["cvm_stage"] is not None:
        lines.append(_cervical_stage(row))
    if row["landmarks"]:
        lines.append(f"{len(row['landmarks'])} landmarks")
    return lines


def _cervical_stage(row: Row) -> str:
    chance = (row["cvm_probabilities"] or {}).get(row["cvm_stage"])
    sure = "" if chance is None else f" ({chance:.0%})".replace("%", " %")
    unusual = "" if row["cvm_typical"] in (None, True) else ", not typical of it"
    return f"Cervical stage {row['cvm_stage']}{sure}{unusual}"


def flags_in_words(row: Row) -> str:
    """The warnings of a row, such as "Warnings: advanced, spacing unknown"; empty where there are none."""
    return f"Warnings: {', '.join(flag.replace('_', ' ') for flag in row['flags'])}" if row["flags"] else ""


def model_in_words(row: Row) -> str:
    """What produced a row: model, the begin of its hash, version of the package."""
    model = f"{row['model']} {(row['model_sha256'] or '')[:12]}" if row["model"] else "none that the image fits"
    return f"Model {model}, boneage-ray {row['package_version']}"
