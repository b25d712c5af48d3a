"""One file for each kind of database: how it connects, what its types are, how it takes rows in bulk."""
