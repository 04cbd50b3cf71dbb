"""Training encoders and head together, one replicate after another."""
