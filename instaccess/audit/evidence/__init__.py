"""Tamper evidence of the audit log: signed checkpoints, verification, pruning. Keys are passed in."""
