"""Raster image files (PNG, JPEG, TIFF and BMP) are decoded here to gray pixels."""
