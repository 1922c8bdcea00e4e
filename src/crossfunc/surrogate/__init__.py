"""The embedded dataset: crystals built from prototypes, relaxed and labelled by two published CHGNet checkpoints."""
