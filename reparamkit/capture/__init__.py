"""torch.export to a functional program, and which sizes may vary."""
