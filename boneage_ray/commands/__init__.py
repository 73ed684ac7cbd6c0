"""What each command does between its flags (cli.py) and its answer."""
