"""What every room may use; imports nothing else of the project."""

import os

# OpenMP reads this when torch is loaded, so `utils` is imported before it. Threads that spin while they wait keep from
# the core the very thread that they wait for, if another program has the other one: ten to fifty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
