"""TSPM, a stage a file."""
