"""What `tessera_cli` offers to Python: one function per verb. The command line stands on it."""
