"""Online scoring over HTTP: the rows of `score`, one request at a time."""
