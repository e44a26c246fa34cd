"""Vector search over the rows of a table: an index in a folder, conditions on plain cells, exact nearest neighbours."""
