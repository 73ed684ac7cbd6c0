"""From pixels to prepared images, and from an archive to a data set of shards with its splits."""
