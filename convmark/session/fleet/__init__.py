"""Several machines: a plan in parts, merging, and a plan on the nodes of a cluster."""
