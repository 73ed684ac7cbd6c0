"""Scoring whole archives offline."""
