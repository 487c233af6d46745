"""Asterism: one request, many machines."""
