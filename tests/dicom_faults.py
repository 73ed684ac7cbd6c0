"""What the faults that phantoms plant in DICOM files must be refused for."""

from __future__ import annotations

# Kind of phantoms/dicom_bad.py -> reason.
FAULTS = {
    "dicom_truncated": "truncated",
    "dicom_report": "no_pixels",
    "dicom_multi_frame": "multi_frame",
    "dicom_bomb": "too_large",
    "dicom_hidden_bomb": "too_large",
    "dicom_unknown_syntax": "unsupported_transfer_syntax",
}
