"""From where reviews lie to the batches a model reads: source → subset → tokens → batches."""
