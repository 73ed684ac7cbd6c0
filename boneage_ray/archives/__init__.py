"""Reading archives: their inputs, and the labels and metadata of each."""
