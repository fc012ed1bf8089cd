"""Raw video and text become feature files."""
