"""Faults injected into every long command, and what became of them: `python -m tests.faults`."""
