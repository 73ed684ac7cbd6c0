"""The bytes of an object, compared with the MD5 that most object stores give as its ETag.

An ETag need not be one: of an object that was uploaded in parts, or is encrypted with a key of the site's, it is something else.
So a difference alone proves nothing. The object is read again: bytes that then have the sum are right; equal bytes are what the
store holds; two reads that differ from each other are a fault.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

from boneage_ray import storage
from boneage_ray.errors import InputProblem

_OF_STORES = ("s3://", "s3a://")
_SUM = re.compile(r'"?([0-9a-f]{32})"?')
_UNLIKE = 8  # objects without one that is like its ETag, until a bucket's ETags count as something else
_unlike: Counter[str] = Counter()  # of this process, by bucket
_with_sums: set[str] = set()


def read_as_listed(uri: str, version: str | None) -> bytes:
    """The whole file. Raises `InputProblem` if the store gives other bytes each time, `StorageError` as `storage.read_bytes`."""
    data = storage.read_bytes(uri)
    told = _SUM.fullmatch(version or "") if uri.lower().startswith(_OF_STORES) else None
    bucket = uri.split("/")[2] if told else ""
    if told is None or _unlike[bucket] >= _UNLIKE:
        return data
    if _md5(data) == told[1]:
        _with_sums.add(bucket)
        return data
    again = storage.read_bytes(uri)
    if _md5(again) == told[1]:
        _with_sums.add(bucket)
        return again
    if again != data:
        message = "the object store gives other bytes each time, and none that its ETag is the MD5 of"
        raise InputProblem("read", "unreadable", message)
    if bucket not in _with_sums:
        _unlike[bucket] += 1
    return data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
