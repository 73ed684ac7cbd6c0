"""The filesystem of S3 that waits through an outage: every request, of whole objects, streams, listings and deletions alike."""

from __future__ import annotations

import asyncio
from typing import Any

from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from boneage_ray.storage import outage
from boneage_ray.storage.repeats import note_repeat


class PatientS3FileSystem(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Makes each request again after each of `outage.PAUSES` if the server does not answer or is busy, but has answered before.

    So an outage of half a minute is no error, while a wrong endpoint is one at once. After an outage that lasts longer nothing is
    waited for until the server has answered again.
    """

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  what botocore takes and gives
        endpoint = self.endpoint_url or ""
        for pause in (*outage.PAUSES, None):
            try:
                answer = await super()._call_s3(method, *args, **kwargs)
            except Exception as error:
                if not outage.is_passing(error) or endpoint not in outage.answered:
                    raise
                if pause is None:
                    outage.answered.discard(endpoint)
                    raise
                note_repeat("requests")
                await asyncio.sleep(pause)
            else:
                outage.answered.add(endpoint)
                return answer
        raise AssertionError("the last pause is None")

    call_s3 = sync_wrapper(_call_s3)  # s3fs binds its own when its class is made
