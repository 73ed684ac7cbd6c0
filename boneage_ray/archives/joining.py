"""Ids of a table that almost name a file: what spreadsheets do to ids, and how to say it.

Where one id and one file come near to each other, and no others, the id is taken for the file, and a remark says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from boneage_ray.archives.archive import Input, remark, stem_of
from boneage_ray.archives.listing import Found
from boneage_ray.errors import UsageError

_POINT_ZERO = re.compile(r"\.0+$")
_SHOWN = 3
Has = Callable[[Found], bool]
List = Callable[[], Iterable[Found]]


@dataclass
class NearIds:
    """Ids by what is left of them without case, leading zeros and a final .0, and the files that come near an id.

    `files` lists all files of the archive; it is called once, when the first file comes near an id. `meant`: id -> the path of
    the file that it was found to mean.
    """

    files: List = tuple
    ids: dict[str, list[str]] = field(default_factory=dict)
    met: dict[str, str] = field(default_factory=dict)
    meant: dict[str, str] = field(default_factory=dict)
    _files: Counter[str] | None = None

    @classmethod
    def of(cls, ids: Iterable[str], files: List = tuple) -> NearIds:
        """The ids of a table."""
        near = cls(files)
        for name in ids:
            near.ids.setdefault(_core(name), []).append(name)
        return near

    def id_of(self, found: Found) -> str | None:
        """The id that can only mean this file, as a spreadsheet writes it; None where another id or file comes near too."""
        core = _core(found.stem)
        names = self.ids.get(core, [])
        if len(names) != 1 or "/" in names[0] or stem_of(names[0]) == found.stem:
            return None
        if self._files is None:
            cores = (_core(each.stem) for each in self.files())
            self._files = Counter(each for each in cores if each in self.ids)
        if self._files[core] != 1:
            return None
        self.meant[names[0]] = found.path
        return names[0]

    def remarks(self) -> Iterator[Input]:
        """One remark for each id that was found to mean a file."""
        for name, path in sorted(self.meant.items()):
            said = "nothing else comes near it. Did a spreadsheet change the id? Keep ids as text, with their zeros"
            yield remark(name, "bad_label", f"was taken for {path}: {said}")

    def meet(self, found: Found) -> None:
        """Remember a file without a row for the ids that it comes near to."""
        for name in self.ids.get(_core(found.stem), ()):
            self.met.setdefault(name, found.path)

    def hint(self, name: str) -> str:
        """For an id without a file: what file comes near, as the end of a sentence; often empty."""
        if name not in self.met:
            return ""
        if stem_of(name) == stem_of(self.met[name]):
            where = "in another folder" if "/" in name or "/" in self.met[name] else "with another ending"
            return f"; there is {self.met[name]}, {where}: give its path"
        return f"; there is {self.met[name]}: did a spreadsheet change the id? Keep ids as text, with their zeros"


def _core(name: str) -> str:
    """What a spreadsheet leaves of an id: "0012.png" and "12.0" are both "12".

    >>> _core("0012"), _core("12.0"), _core("a/0012.png"), _core("A01")
    ('12', '12', '12', 'a01')
    """
    bare = _POINT_ZERO.sub("", stem_of(name)).casefold()
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


def check_any_joins(
    table: str, source: str, ids: Iterable[str], files: Iterable[Found], near: NearIds, has: Has
) -> None:
    """Raise `UsageError` if none of the ids of a table names a file; lists files until one does.

    `has`: whether a file has a row; one that has none is met (`NearIds.meet`) here.
    """
    names, seen_files = list(ids), list[str]()
    if not names:
        return
    for found in files:
        if has(found):
            return
        near.meet(found)
        seen_files += [found.path] if len(seen_files) < _SHOWN else []
    if not seen_files:
        return  # that there is no file is said by the listing itself
    shown = ", ".join(map(repr, names[:_SHOWN]))
    seen = ", ".join(map(repr, seen_files))
    hint = next((text for name in names if (text := near.hint(name))), "")
    raise UsageError(
        f"{table}: none of its {len(names):,} ids names a file of {source} (ids: {shown}; files: {seen}){hint}; "
        "ids are paths below it, file names, or names without their ending"
    )
