"""Numbers of a folded network go back into a class of one's own.

folded network  ──capture──▶ data flow ─┐
                                        align ──▶ pairs of constants ──solve──▶ the target's own weights
target ──capture──fold──▶ data flow ────┘                                              │
                                                         compare with the original ◀───┘
"""
