"""Environments made from requirements such as `tensorflow==2.20.*`."""
