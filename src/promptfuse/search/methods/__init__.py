"""Proposal methods: what to try next."""
