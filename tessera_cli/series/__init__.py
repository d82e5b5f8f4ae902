"""Time series of points in long tables: a row per sample and date -> ragged pixels -> embeddings."""
