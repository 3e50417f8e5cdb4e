"""Beyond one machine: a plan in parts, their joining, and a plan on the nodes of a cluster."""
