"""Measured speed and memory: python -m scripts.benchmark."""
