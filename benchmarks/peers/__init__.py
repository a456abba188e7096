"""What one would write without this project: scripts with the Hugging Face Trainer and with `pipeline`."""
