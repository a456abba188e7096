"""Measurements side by side with the Hugging Face Trainer: `make bench`, and the modules' own docstrings."""
