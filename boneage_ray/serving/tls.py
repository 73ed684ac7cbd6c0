"""HTTPS by Ray Serve's own proxy, for a service without a gateway before it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from boneage_ray.errors import UsageError


@dataclass(frozen=True)
class TlsFiles:
    """Absolute paths of a certificate, with its chain, and of its key, both PEM."""

    certificate: str
    key: str


def known_tls(certificate: str | None, key: str | None) -> TlsFiles | None:
    """The two files, checked; None where neither is given. Raises `UsageError` for one alone and for a pair that does not fit."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together: give both")
    files = TlsFiles(str(Path(certificate).absolute()), str(Path(key).absolute()))
    try:
        # Without the password OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        cause = error.reason or "no PEM"
        raise UsageError(
            f"--tls-cert {certificate} --tls-key {key}: {cause}; give PEM files without a password"
        ) from None
    except OSError as error:
        raise UsageError(f"--tls-cert {certificate} --tls-key {key}: {error.strerror}") from None
    return files
