"""Recipes that make prefill and decode modules that fit each other."""
