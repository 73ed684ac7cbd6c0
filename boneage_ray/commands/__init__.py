"""What each command does between its flags (cli/) and its answer."""
