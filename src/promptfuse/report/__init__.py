"""Pages and plots of searches and of runs over data sets."""
