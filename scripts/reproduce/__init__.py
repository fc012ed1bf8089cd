"""The tables and the figure of the paper as a queue of runs: python -m scripts.reproduce."""
