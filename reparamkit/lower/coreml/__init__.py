"""Core ML: from an exported program to an `.mlpackage` that was evaluated before it appears."""
