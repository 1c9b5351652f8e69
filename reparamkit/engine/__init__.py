"""The search for folds on a graph of values, whatever the network is held in."""
