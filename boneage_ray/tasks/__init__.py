"""What a model is trained for and what its outputs mean."""
