"""The commands of `penstock streams`."""
