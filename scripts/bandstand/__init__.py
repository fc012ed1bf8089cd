"""Training of the small encoders of Bandstand."""
