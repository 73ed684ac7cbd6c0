"""From the bytes of one file to one prepared record, or to the reason why not."""
