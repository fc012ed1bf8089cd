"""What every room may use; imports nothing else of the project."""
