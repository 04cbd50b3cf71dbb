"""Heads and layers for R replicates at once, and the matrix products below them."""
