"""Synthetic radiographs with known answers: the demo and most tests live on them."""
