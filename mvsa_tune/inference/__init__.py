"""A finished sweep at work: its best head or network, trained again or opened, labels pairs and is exported."""
