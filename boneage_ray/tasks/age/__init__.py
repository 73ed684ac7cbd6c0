"""Bone age in months, with stage classes beside it: all that is particular to this task."""
