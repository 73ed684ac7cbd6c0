"""DICOM: from the bytes of a file to gray pixels, spacing, sex and identifiers."""
