"""The instances that a DICOMweb server finds, study by study in the order of their UIDs, and which of them are no images.

Three searches, one for each level, because few servers search instances over all studies. The UIDs of the studies are held in
memory; all else is asked for a few studies ahead.

DICOM changes no instance under its UID, but archives do: somebody corrects the sex. No search tells when, so the version of an
instance is a hash of what the search tells of the elements in `_DECISIVE`; a server gives those that it has at hand. No birth
date is among them: it could be guessed from its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

from boneage_ray.errors import Reason, StorageError
from boneage_ray.storage.dicomweb_source import Place, Query, parsed_address, search

PICTURE_SERIES = "Skeletal maturity, picture"  # the series description of our own pictures
_STUDY_UID, _SERIES_UID, _SOP_UID = "0020000D", "0020000E", "00080018"
_SOP_CLASS, _MODALITY, _SERIES_DESCRIPTION = "00080016", "00080060", "0008103E"
_THREADS, _AHEAD = 4, 32

_DECISIVE = {
    **{"PatientSex": "00100040", "PatientAge": "00101010", "BodyPartExamined": "00180015", "ViewPosition": "00185101"},
    **{"Rows": "00280010", "Columns": "00280011", "NumberOfFrames": "00280008", "BitsStored": "00280101"},
    **{"PhotometricInterpretation": "00280004", "PixelSpacing": "00280030", "ImagerPixelSpacing": "00181164"},
    **{"WindowCenter": "00281050", "WindowWidth": "00281051", "RescaleSlope": "00281053"},
}


class Instance(NamedTuple):
    """A listed instance; `problem`: why it is not scored. `version`: changes with its header, as far as the search tells."""

    uri: str
    problem: tuple[Reason, str] | None = None
    version: str | None = None


def instances_of(source: str) -> Iterator[Instance]:
    """Every instance that the query of an address finds, each once and always in one order."""
    from boneage_ray.runtime.parts import prefetched  # with pyarrow, which no other listing needs

    place = parsed_address(source)
    if len(place.uids) == 3:
        yield Instance(source)
        return
    studies = list(place.uids[:1]) or sorted(_studies(place))
    for found in prefetched(lambda uid: _of_study(place, uid), studies, _THREADS, _AHEAD):
        yield from found


def _studies(place: Place) -> set[str]:
    """The UIDs of the studies; several modalities, with commas between them, are searched one after the other."""
    filters, modalities = place.filters["studies"], place.filters["series"].get("Modality", "")
    searches = [{**filters, "ModalitiesInStudy": one} for one in modalities.split(",")] if modalities else [filters]
    return {uid for each in searches for uid in search(place, "studies", each, [_STUDY_UID])}


def _of_study(place: Place, study: str) -> list[Instance]:
    """The instances of a study; none if it was deleted since it was found."""
    try:
        if len(place.uids) > 1:
            return _of_series(place, "", "")
        inside = replace(place, uids=(study,))
        filters = {**place.filters["series"], "includefield": _SERIES_DESCRIPTION}
        modalities = filters.pop("Modality", "")
        searches = [{**filters, "Modality": one} for one in modalities.split(",")] if modalities else [filters]
        tags = [_SERIES_UID, _MODALITY, _SERIES_DESCRIPTION]
        series = {uid: more for each in searches for uid, more in search(inside, "series", each, tags).items()}
        found: list[Instance] = []
        for uid, (modality, description) in sorted(series.items()):
            found += _of_series(replace(place, uids=(study, uid)), modality, description)
        return found
    except StorageError as error:
        if error.reason == "not_found":
            return []
        raise


def _of_series(series: Place, modality: str, description: str) -> list[Instance]:
    # One includefield each, because not every server splits them at commas.
    filters: Query = {**series.filters["instances"], "includefield": list(_DECISIVE.values())}
    found = search(series, "instances", filters, [_SOP_UID, _SOP_CLASS, *_DECISIVE.values()])
    is_ours = (modality, description) == ("OT", PICTURE_SERIES)
    return [
        Instance(f"{series.service}/{series.path}/instances/{uid}", _passed_over(sop_class, is_ours), _version(told))
        for uid, (sop_class, *told) in sorted(found.items())
    ]


def _version(told: list[str]) -> str:
    return blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def _passed_over(sop_class: str, is_ours: bool) -> tuple[Reason, str] | None:
    """Why an instance is not fetched. A class that the standard does not know is: its content tells."""
    if is_ours:
        return "unsupported_format", "pictures that boneage export made"
    from pydicom.uid import UID

    known = UID(sop_class)
    return ("unsupported_format", known.name) if known.name != sop_class and "Image" not in known.name else None
