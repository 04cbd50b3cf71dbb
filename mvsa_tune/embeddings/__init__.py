"""Samples and an encoder become a cache of vectors."""
