"""A matrix of builds: each cell is built once, on some node, and its record is in the store."""
