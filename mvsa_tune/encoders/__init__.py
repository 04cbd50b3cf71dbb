"""Pretrained encoders by name, and their weights."""
