"""Folders on disk: samples, labels, texts, pictures, splits, duplicates."""
