"""Tables of vectors with labels: Parquet, CSV and NumPy archives, read as columns."""
