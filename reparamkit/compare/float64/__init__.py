"""The oracle: the reference's own float64 run, its rounding noise, and the second look at failures."""
