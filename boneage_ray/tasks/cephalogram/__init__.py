"""Landmarks of lateral cephalograms and the cervical stage: all that is particular to this task."""
