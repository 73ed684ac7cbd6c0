"""Hand masks: all that is particular to this task."""
