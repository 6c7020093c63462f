"""What the README says about speed, measured beside its peers: `make bench`."""
