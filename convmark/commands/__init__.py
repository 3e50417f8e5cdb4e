"""What the commands of `convmark` do; `convmark.cli` has their options."""
