"""Predictions on Replicate, from the request to the stored output; knows no web framework."""
