"""Annotations and feature files become batches."""
