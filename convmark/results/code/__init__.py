"""The code of a run: its files, their contents, and how to run them again."""
