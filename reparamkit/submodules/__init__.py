"""A network that cannot be captured as a whole, folded part by part.

    run once, watched ──▶ capture and fold the largest parts ──▶ put them into a copy of the network

The network's own code goes on deciding which part runs when; a part is a submodule that it calls. In the
copy every module is still the object and the class that it was, so what the network reads off a part stays
right; only the `forward` of a folded part is another (`reparamkit.submodules.replacement`).
"""
