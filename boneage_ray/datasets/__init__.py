"""Prepared records to device batches."""
