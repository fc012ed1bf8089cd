"""Tables as a queue of runs: python -m scripts.reproduce."""
