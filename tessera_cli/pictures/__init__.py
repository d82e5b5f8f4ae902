"""Something to look at: embeddings as colours, in one picture per window and a page that shows them all."""
