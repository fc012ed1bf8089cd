"""The science of scoring: accuracy, intervals, grounding, the tables and pictures of the paper."""
