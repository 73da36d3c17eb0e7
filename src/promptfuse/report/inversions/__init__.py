"""Pages and plots of inversions."""
