"""Compiled for a named device: does it fit, how long does it take?"""
