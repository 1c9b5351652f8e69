"""torch.fx as a host: the only place where the search and the proofs meet its graphs."""
