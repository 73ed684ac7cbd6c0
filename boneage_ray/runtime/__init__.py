"""How a command runs: what every command records and prints, Ray joined or started, and work committed part by part."""
