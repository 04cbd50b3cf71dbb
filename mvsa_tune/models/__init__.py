"""Heads and layers for R replicates at once, and the matrix products below them."""

ATTENTION_HEADS = 8  # the reference's; D of a head that attends is a multiple of it
