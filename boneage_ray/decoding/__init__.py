"""This room turns the bytes of one file into pixels and header values, or gives the reason why the file cannot be used."""
