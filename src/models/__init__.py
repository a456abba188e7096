"""The LightningModules, and what they are made of: networks, metrics, the optimizer."""
