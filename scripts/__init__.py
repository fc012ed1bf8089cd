"""Commands around training and testing."""
