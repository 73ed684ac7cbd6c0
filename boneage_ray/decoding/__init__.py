"""From the bytes of one file to pixels and what the file says of them, or to the reason why there are none."""
