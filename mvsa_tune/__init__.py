"""Hyperparameter sweeps for multimodal (picture + text) sentiment, with numbers one can trust."""

__version__ = "0.1.0"
