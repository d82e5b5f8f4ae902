"""After a run, or beside it: what is in a folder, and whether it is right."""
