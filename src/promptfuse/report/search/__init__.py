"""Pages that show what a search did."""
