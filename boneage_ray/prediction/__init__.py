"""A bundle made callable."""
