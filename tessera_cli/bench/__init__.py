"""`tessera bench`: what this machine makes of the work. Every module has one `measure` that returns plain JSON."""
