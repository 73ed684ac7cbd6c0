"""Synthetic radiographs with known ages, masks, landmarks and stages, for the demo, tests and pretraining."""
