"""Light models on frozen features, and how their accuracy is measured. Arrays in, arrays out: no files, no geometry."""
