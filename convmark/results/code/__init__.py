"""The code that a run ran: which files, what they held, and how to run them again."""
