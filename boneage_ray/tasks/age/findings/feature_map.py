"""A map of the cases by what the network sees in them: t-SNE of the encoder's features, coloured by age and by sex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import MONTHS_PER_YEAR
from boneage_ray.evaluation.figures import HALF, SEX_STYLES, as_svg, one_axes, styled
from boneage_ray.evaluation.page import PagePicture, Section, percent
from boneage_ray.preparation.geometry import Floats
from boneage_ray.records.schema import Row

FEWEST = 20
MANY = 1000  # beyond so many, points are one embedded picture
TITLE = "What the network sees: a map of the cases"
_COMPONENTS, _PERPLEXITY, _NEIGHBOURS = 50, 30.0, 10


def map_figures(rows: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """`places`: (x, y) of each case of `rows` of `predict_ages` that keeps its features, or none where these say nothing.

    `age_spread_months`: how far the ages of a case's nearest neighbours in the features are from its own, on average, and
    `by_chance` that of any two cases. `same_sex`: how often a neighbour has the case's sex, and what share chance would give;
    None where all have one sex. The features are those of the image alone: the sex that is given to the network is in none.
    """
    kept = [row for row in rows if row["features"] is not None]
    found: dict[str, Any] = {"n": len(kept), "places": [], "why": None}
    if len(kept) < FEWEST:
        return found | {"why": f"Not enough cases ({len(kept)} of {FEWEST})."}
    features_NF = np.array([row["features"] for row in kept], np.float64)
    if not features_NF.std(0).max() > 1e-9:
        return found | {"why": "The network sees the same in every case: all features are equal."}
    near_NK = _neighbours(_reduced(features_NF))
    age_N = np.array([row["true_months"] for row in kept], np.float64)
    found |= {"places": [[float(x), float(y)] for x, y in placed(features_NF, seed).round(3)]}
    found["age_spread_months"] = float(np.abs(age_N[near_NK] - age_N[:, None]).mean())
    found["by_chance"] = float(np.abs(age_N[:, None] - age_N[None]).sum() / (len(kept) * (len(kept) - 1)))
    return found | {"same_sex": _same_sex([row["sex"] for row in kept], near_NK)}


def placed(features_NF: Floats, seed: int = 0) -> Floats:
    """(N, 2): t-SNE of standardised features (van der Maaten and Hinton 2008), from their first principal components."""
    from sklearn.manifold import TSNE

    reduced_NC = _reduced(features_NF)
    few = min(_PERPLEXITY, (len(reduced_NC) - 1) / 3)
    start = "pca" if reduced_NC.shape[1] > 1 else "random"
    return np.asarray(TSNE(perplexity=few, init=start, random_state=seed).fit_transform(reduced_NC), np.float64)


def _reduced(features_NF: Floats) -> NDArray[np.float32]:
    """The first principal components of the standardised features; one that never moves is left out."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    z_NF = StandardScaler().fit_transform(features_NF[:, features_NF.std(0) > 1e-9])
    return np.asarray(PCA(min(_COMPONENTS, *z_NF.shape), svd_solver="full").fit_transform(z_NF), np.float32)


def _neighbours(reduced_NC: NDArray[np.float32]) -> NDArray[np.intp]:
    """(N, K): the numbers of each case's nearest others."""
    from sklearn.neighbors import NearestNeighbors

    found: NDArray[np.intp] = (
        NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(reduced_NC).kneighbors(return_distance=False)
    )
    return found


def _same_sex(sexes: Sequence[str | None], near_NK: NDArray[np.intp]) -> dict[str, float] | None:
    given = np.array([sex or "" for sex in sexes])
    known = given != ""
    if len(set(given[known].tolist())) < 2:
        return None
    both = known[:, None] & known[near_NK]
    if not both.any():
        return None
    girls = float((given[known] == "F").mean())
    same = (given[near_NK] == given[:, None])[both]
    return {"share": float(same.mean()), "by_chance": girls**2 + (1 - girls) ** 2}


def map_section(found: Mapping[str, Any], rows: Sequence[Row], note: str, command: str) -> Section:
    """The part of the page: `found` of `map_figures` of these rows."""
    if not found["places"]:
        return Section(TITLE, [found["why"]])
    kept = [row for row in rows if row["features"] is not None]
    text = [
        "Each case is a point; near points look alike to the network (t-SNE of the features of the image, without the sex that "
        "is given to it). Distances between far groups mean nothing.",
        f"The true ages of a case and of its {_NEIGHBOURS} nearest neighbours are {found['age_spread_months']:.1f} months apart "
        f"on average; those of any two cases {found['by_chance']:.1f}.",
    ]
    if same := found["same_sex"]:
        text.append(
            f"A neighbour has the same sex in {percent(same['share'])}; by chance it would in {percent(same['by_chance'])}."
        )
    places = np.array(found["places"])
    alt = f"Map of {len(kept)} cases by the features of the network"
    pictures = [
        PagePicture(age_map(places, kept), f"{alt}, coloured by true age", "By true age."),
        PagePicture(sex_map(places, kept), f"{alt}, coloured by sex", "By sex."),
    ]
    return Section(TITLE, [*text, *([note] if note else [])], (), pictures, command)


@styled
def age_map(places_N2: Floats, rows: Sequence[Row]) -> bytes:
    """The places of the cases, coloured by true age."""
    fig, ax = one_axes(HALF, 4.2)
    years = [row["true_months"] / MONTHS_PER_YEAR for row in rows]
    dots = ax.scatter(
        places_N2[:, 0], places_N2[:, 1], c=years, cmap="viridis", s=9, linewidths=0, rasterized=len(rows) > MANY
    )
    fig.colorbar(dots, ax=ax, label="true age (years)", shrink=0.9)
    ax.set(xticks=[], yticks=[])
    return as_svg(fig, "map-age")


@styled
def sex_map(places_N2: Floats, rows: Sequence[Row]) -> bytes:
    """The places of the cases, coloured by sex."""
    fig, ax = one_axes(HALF, 4.2)
    for sex, label, marker, colour in SEX_STYLES:
        chosen = np.array([row["sex"] == sex for row in rows], bool)
        if chosen.any():
            (dots,) = ax.plot(*places_N2[chosen].T, marker, color=colour, ms=3.2, mew=0, alpha=0.7, label=label)
            dots.set_rasterized(len(rows) > MANY)
    ax.legend(fontsize=9)
    ax.set(xticks=[], yticks=[])
    return as_svg(fig, "map-sex")
