"""A finished sweep at work: its best head, labels, export."""
