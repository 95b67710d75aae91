"""Runs as pages and pictures, and runs side by side."""
