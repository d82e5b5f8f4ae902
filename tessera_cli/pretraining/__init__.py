"""Pretraining: d-pixels -> an encoder, by Barlow Twins."""
