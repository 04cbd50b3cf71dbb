"""A configuration and its vectors become a result."""
