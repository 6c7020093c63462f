"""Tamper evidence for the audit log: signed checkpoints, verification and pruning. Callers pass in the keys."""
