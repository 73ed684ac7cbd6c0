"""What a prepared record and a result row are: their columns, types and units."""
