"""Tables of results, and the forms they take."""
