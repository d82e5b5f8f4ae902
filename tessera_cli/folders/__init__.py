"""Output folders: whose they are, what runs asked for, which tiles are done, what is left in the middle."""
