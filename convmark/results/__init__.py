"""Files of results: records, run files, small tables, and the code of runs."""
