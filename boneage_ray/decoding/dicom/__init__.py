"""DICOM files are decoded here to gray pixels, pixel spacing, sex and identifiers."""
