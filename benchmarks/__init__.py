"""Measurements that anyone can repeat; each program prints `--json` for scripts."""
