"""The commands of `penstock api`."""
