"""Asking a trained model about a video: its encoders, its answers, and the picture of what it looked at."""
