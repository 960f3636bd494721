"""Launchers start, watch and kill worker processes with given resources; they know nothing of stages."""
