"""The tables of a report, each made from rows only; page, text, Markdown and CSV print them."""
