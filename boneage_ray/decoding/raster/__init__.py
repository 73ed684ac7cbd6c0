"""Raster image files to gray pixels: PNG, JPEG, TIFF and BMP."""
