"""Texts and their tokens: offsets, common segments and where words begin."""
