"""Experiments about the method and measurements of its cost. Run one from the root: python -m studies.smoke"""
