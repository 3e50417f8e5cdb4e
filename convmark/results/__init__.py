"""What is on the disk: records, run files, small tables, and the code that runs ran."""
