"""Archives as people keep them: what inputs there are and what is known of each."""
