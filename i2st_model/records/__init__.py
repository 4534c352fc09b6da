"""What is kept in files for others to read: episodes, and predictions on them."""
