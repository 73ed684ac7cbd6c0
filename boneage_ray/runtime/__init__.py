"""How a command runs: its record and output, its Ray cluster, and work committed part by part."""
