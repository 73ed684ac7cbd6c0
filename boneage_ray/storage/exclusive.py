"""Files that only one writer may create, for leases: by O_EXCL on disk, by a conditional request on S3."""

from __future__ import annotations

from pathlib import Path

from boneage_ray.storage import facade, outage, s3
from boneage_ray.storage.errors import translated

_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_UNKNOWN = ("NotImplemented", "InvalidArgument", "501")


def write_new(uri: str, data: bytes) -> bool:
    """Write a small file unless there is one already; False if there is.

    Of several writers at the same time exactly one succeeds on disk and on every store with conditional writes (AWS, MinIO,
    Ceph). A store that ignores the condition lets the last one win: `is_exclusive` says where that is excluded.
    """
    location = facade.locate(uri)
    if location.scheme == "file":
        with translated(uri):
            Path(location.path).parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(location.path, "xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        return True
    if facade.exists(uri):
        return False
    if location.scheme not in ("s3", "s3a"):
        facade.write_bytes(uri, data)
        return True
    bucket, _, key = location.path.partition("/")
    with translated(uri):
        try:
            location.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except OSError as error:
            code = outage.error_code(error.__cause__)
            if code in _EXISTS:
                # Ours, if a request was made again because its answer was lost.
                return facade.exists(uri) and facade.read_bytes(uri) == data
            if code not in _UNKNOWN:
                raise
            facade.write_bytes(uri, data)
    return True


def is_exclusive(uri: str) -> bool:
    """Whether `write_new` lets exactly one writer succeed; False where the store is not known to."""
    scheme = facade.locate(uri).scheme
    return scheme == "file" or (scheme in ("s3", "s3a") and s3.endpoint() is None)
