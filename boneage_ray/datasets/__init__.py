"""Reading prepared records as batches."""
