"""RSNA Pediatric Bone Age 2017 layout: `<name>.csv` with labels beside a folder `<name>/` of `<id>.png`, nested or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from boneage_ray import storage
from boneage_ray.archives.archive import IMAGE_ENDINGS, Archive, Input, Unmatched, stem_of
from boneage_ray.archives.tables import TableRow, header_of, labelled, parse_age, read_table
from boneage_ray.errors import NoUsableInputError, StorageError, UsageError


class RsnaArchive(Archive):
    """Images joined with their labels by id; whatever does not join is listed by `unmatched`."""

    def __init__(self, source: str, labels: str | None = None) -> None:
        # Absolute, as listings are: a relative path would not be found inside them.
        self.source = storage.locate(source).uri
        self.labels = storage.locate(labels).uri if labels else find_labels(self.source)
        self._unmatched: list[Unmatched] = []

    def inputs(self) -> Iterator[Input]:
        """Labelled images in the order of their URIs. Raises `NoUsableInputError` when nothing is there."""
        self._unmatched = []
        rows = self._usable_rows()
        seen: set[str] = set()
        files = 0
        for uri in self._images():
            files += 1
            record_id = stem_of(uri)
            row = rows.get(record_id)
            if record_id in seen:
                self._miss(uri, record_id, "duplicate_id", "another image of this id was taken already")
            elif row is None:
                if record_id not in self._explained:
                    self._miss(uri, record_id, "no_label", f"no row of {self.labels} has this id")
            else:
                seen.add(record_id)
                yield labelled(uri, row)
        for record_id in rows.keys() - seen:
            self._miss("", record_id, "no_image", f"{self.labels} names it, but {self.source} holds no such image")
        if files == 0:
            raise NoUsableInputError(f"{self.source} holds no image ({', '.join(IMAGE_ENDINGS)})")

    def unmatched(self) -> list[Unmatched]:
        """Labels without image, images without label, unusable labels; sorted by id."""
        return sorted(self._unmatched, key=lambda m: (m.record_id, m.uri))

    def _usable_rows(self) -> dict[str, TableRow]:
        """Rows whose age can be used; an id given twice with different labels is ambiguous and not used at all."""
        grouped: dict[str, list[TableRow]] = defaultdict(list)
        for row in read_table(self.labels, needs_age=True):
            grouped[_id_of(row)].append(row)
        usable: dict[str, TableRow] = {}
        self._explained: set[str] = set()
        for record_id, rows in grouped.items():
            if len(rows) > 1:
                same = len({(r.age_text, r.sex) for r in rows}) == 1
                said = "the first is used" if same else "their labels differ: none is used"
                self._miss("", record_id, "duplicate_id", f"{len(rows)} rows of {self.labels}; {said}")
                if not same:
                    self._explained.add(record_id)
                    continue
            if parse_age(rows[0].age_text) is None:
                self._miss("", record_id, "bad_label", f"bone age {rows[0].age_text!r}; months in 0..240 are needed")
                self._explained.add(record_id)
                continue
            usable[record_id] = rows[0]
        return usable

    def _images(self) -> Iterator[str]:
        named = self.labels.rsplit(".", 1)[0]
        inside = named.startswith(self.source + "/") and storage.exists(named)
        for info in storage.list_files(named if inside else self.source):
            if info.uri.lower().endswith(IMAGE_ENDINGS):
                yield info.uri

    def _miss(self, uri: str, record_id: str, reason: str, message: str) -> None:
        self._unmatched.append(Unmatched(uri, record_id, reason, message))  # type: ignore[arg-type]


def find_labels(source: str) -> str:
    """The label table of an archive: `<source>.csv`, else the one CSV with id and bone age columns inside it."""
    beside = source.rstrip("/") + ".csv"
    if storage.exists(beside):
        return beside
    if not storage.exists(source):
        raise StorageError("not_found", f"{source}: there is no such file or folder")
    tables = [info.uri for info in storage.list_folder(source) if info.uri.lower().endswith(".csv")]
    fitting = [uri for uri in tables if _has_labels(uri)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{source} holds several label tables ({', '.join(fitting)}); choose one with --labels CSV")
    if tables:
        raise UsageError(
            f"no table in {source} has an id and a bone age column ({', '.join(tables)}); "
            "name them id and boneage (months), or give --labels CSV"
        )
    raise NoUsableInputError(f"{source} holds no label table; give --labels CSV with columns id, boneage, male")


def _has_labels(uri: str) -> bool:
    columns = header_of(storage.read_bytes(uri).decode("utf-8-sig", errors="replace"))
    return columns.record_id is not None and columns.age is not None


def _id_of(row: TableRow) -> str:
    """Ids may be written with the extension."""
    return stem_of(row.record_id) if row.record_id.lower().endswith(IMAGE_ENDINGS) else row.record_id
