"""Tamper evidence for the audit log: signed checkpoints, verification, pruning. Callers pass in the keys."""
