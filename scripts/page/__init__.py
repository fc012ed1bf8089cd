"""What the local page of `scripts.app` is made of."""
