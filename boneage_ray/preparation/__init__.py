"""Preparing radiographs: pixels to prepared images, and archives to shards with splits."""
