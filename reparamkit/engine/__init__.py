"""The search for folds on a graph of values: neither torch.fx nor ONNX is known here."""
