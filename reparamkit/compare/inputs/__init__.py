"""What two networks are compared on: descriptions, examples, real data, probes, other sizes."""
