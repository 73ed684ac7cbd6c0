"""Certificate and key of the service before it starts; the real one speaks TLS in test_service.py."""

from __future__ import annotations

import subprocess

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.serving.tls import TlsFiles, known_tls


def test_a_pair_that_fits_is_taken_by_absolute_path(tls, monkeypatch, tmp_path):
    (tmp_path / "cert.pem").symlink_to(tls.certificate)
    monkeypatch.chdir(tmp_path)
    assert known_tls("cert.pem", tls.key) == TlsFiles(str(tmp_path / "cert.pem"), tls.key)
    assert known_tls(None, None) is None


def test_what_does_not_fit_is_refused(tls, tmp_path):
    locked = str(tmp_path / "locked.pem")
    subprocess.run(["openssl", "ec", "-in", tls.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    for certificate, key, said in (
        (tls.certificate, None, "belong together"),
        (tls.certificate, tls.certificate, "without a password"),
        (tls.certificate, str(tmp_path / "nowhere"), "No such file"),
        (tls.certificate, locked, "without a password"),
    ):
        with pytest.raises(UsageError, match=said):
            known_tls(certificate, key)
