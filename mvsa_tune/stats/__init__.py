"""What recorded numbers are worth: intervals, tests, the best of many, errors, duplicates."""
