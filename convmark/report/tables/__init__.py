"""The tables of a report, each made from rows alone; page, text, Markdown and CSV print them."""
