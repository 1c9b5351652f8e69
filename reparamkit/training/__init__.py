"""Training of networks that are going to be folded."""
