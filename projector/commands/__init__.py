"""The commands of `penstock projector`."""
