"""Fine-tune BERT on IMDb reviews with PyTorch Lightning: `python -m src --help`."""

__version__ = "0.1.0"
