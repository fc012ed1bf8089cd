"""The model: one file a stage."""
