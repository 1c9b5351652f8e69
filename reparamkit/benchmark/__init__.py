"""How fast a network is as it came, after other tools, and folded."""
