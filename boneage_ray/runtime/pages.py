"""Parquet files read with the checksums of their pages, so that bytes a store got wrong become no values.

The length of an answer says nothing of its bytes. `parts.commit` writes a CRC32 for each page. Earlier files have none: they are
read as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import storage
from boneage_ray.errors import StorageError

_READS = 2


def read_pages(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file, or some columns of it, with the metadata of its schema.

    Raises `StorageError` if a page is not what was written, also when it is read a second time.
    """
    wanted = None if columns is None else list(columns)
    cause: Exception | None = None
    for _ in range(_READS):
        try:
            with storage.open_read(uri) as file:
                return pq.read_table(file, columns=wanted, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as error:  # of Arrow: the storage's own are StorageErrors
            cause = error
    raise StorageError("unreadable", f"{uri}: its bytes are not those that were written ({cause})")
