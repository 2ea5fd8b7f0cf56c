"""Measured candidates as one HTML page."""
