"""Computation graphs, and the ways to differentiate what they compute."""
