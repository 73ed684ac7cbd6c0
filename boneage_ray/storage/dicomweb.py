"""A DICOMweb server, such as a PACS, by its URI: dicomweb+https://HOST/PATH, the address of the service before /studies.

Credentials are BONEAGE_DICOMWEB_TOKEN (a bearer token), else BONEAGE_DICOMWEB_USER and BONEAGE_DICOMWEB_PASSWORD; never in the
URI, which logs would keep. REQUESTS_CA_BUNDLE names the certificates of a site of your own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from boneage_ray.errors import Reason, StorageError, UsageError

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient

SCHEMES = ("dicomweb+https://", "dicomweb+http://")
ATTEMPTS, FIRST_PAUSE_MS = 5, 500  # 1, 2, 4, 8 s between them
TIMEOUT_SECONDS = (10.0, 120.0)  # to connect, to answer
_ONE_MESSAGE = 1 << 30  # bytes; above dicomweb-client sends in pieces, which it cannot send a second time
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
CREDENTIALS = "set BONEAGE_DICOMWEB_USER and BONEAGE_DICOMWEB_PASSWORD, or BONEAGE_DICOMWEB_TOKEN"
_BY_STATUS: dict[int, tuple[Reason, str]] = {
    401: ("permission_denied", f"the server wants other credentials: {CREDENTIALS}"),
    403: ("permission_denied", "these credentials may not do this; ask for the permission to store"),
    404: (
        "not_found",
        "there is no DICOMweb service here: give the address before /studies, such as dicomweb+https://HOST/dicom-web",
    ),
    413: ("too_large", "the server takes no message of this size; raise its limit"),
    507: ("unreadable", "the server has no space left"),
}


def is_dicomweb(uri: str) -> bool:
    """Whether a URI is that of a DICOMweb server."""
    return uri.lower().startswith(SCHEMES)


def service_address(uri: str) -> str:
    """The http(s) address of a service. Raises `UsageError` for credentials or a query in it, and for none at all."""
    address = uri[len("dicomweb+") :].rstrip("/")
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise UsageError(f"dicomweb+{parts.scheme}://***@...: credentials in an address end up in logs; {CREDENTIALS}")
    if not parts.hostname or parts.query:
        raise UsageError(f"{uri}: the address of a service is needed, such as dicomweb+https://HOST/dicom-web")
    return address


@cache
def client_of(uri: str) -> DICOMwebClient:
    """A client of the service, one in each process. Raises `UsageError` without its extra, or with credentials on plain http."""
    address = service_address(uri)
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError:
        raise UsageError(f"{uri}: DICOMweb needs its client: pip install 'boneage-ray[export]'") from None
    client = DICOMwebClient(address, session=new_session(address), timeout=TIMEOUT_SECONDS, chunk_size=_ONE_MESSAGE)
    client.set_http_retry_params(True, ATTEMPTS, FIRST_PAUSE_MS)
    return client


def new_session(address: str) -> Any:  # noqa: ANN401  requests has no types
    """Connections to an http(s) address with the credentials. Raises `UsageError` where these would be sent over plain http."""
    import requests

    session = requests.Session()
    session.trust_env = True
    token, user = os.environ.get("BONEAGE_DICOMWEB_TOKEN"), os.environ.get("BONEAGE_DICOMWEB_USER")
    parts = urlsplit(address)
    if (token or user) and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(f"{address}: credentials are not sent over plain http; use dicomweb+https://")
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user:
        session.auth = (user, os.environ.get("BONEAGE_DICOMWEB_PASSWORD", ""))
    return session


def check_service(uri: str) -> None:
    """Ask for one study, so that a wrong address or wrong credentials are known before any work."""
    with answering(uri):
        client_of(uri).search_for_studies(limit=1)


_REFUSING = (400, 409, 413)  # all instances of a request: they are wrong, there already as others, or too large


def store_instances(uri: str, files: list[bytes]) -> list[tuple[str, str]]:
    """Send DICOM files (STOW-RS); (SOP Instance UID, reason in words) of those that the server refused.

    Raises `StorageError` if it takes none of them for a reason that has nothing to do with them.
    """
    import io

    import requests
    from pydicom import dcmread

    made = [dcmread(io.BytesIO(data)) for data in files]
    with answering(uri):
        try:
            answer = client_of(uri).store_instances(made)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code not in _REFUSING:
                raise
            return [(str(each.SOPInstanceUID), f"HTTP {error.response.status_code}") for each in made]
    failed = answer.get("FailedSOPSequence") or []
    return [
        (str(item.ReferencedSOPInstanceUID), f"failure reason {int(item.get('FailureReason') or 0):04X}H")
        for item in failed
    ]


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn errors of a request into a `StorageError` that names the service and what to do; passing ones were retried before."""
    import requests
    from retrying import RetryError

    try:
        yield
    except requests.HTTPError as error:
        raise _refused(uri, 0 if error.response is None else error.response.status_code) from None
    except RetryError as error:
        raise _refused(uri, error.last_attempt.value.status_code) from None
    except requests.exceptions.SSLError:
        raise StorageError(
            "unreadable", f"{uri}: no secure connection; check the certificate and REQUESTS_CA_BUNDLE"
        ) from None
    except requests.RequestException as error:
        cause = f"no answer after {ATTEMPTS} attempts ({type(error).__name__}); start it, or check the address"
        raise StorageError("unreadable", f"{uri}: {cause}") from None


def _refused(uri: str, status: int) -> StorageError:
    reason, cause = _BY_STATUS.get(status, ("unreadable", "the server failed; its log says why"))
    return StorageError(reason, f"{uri}: HTTP {status}: {cause}")
