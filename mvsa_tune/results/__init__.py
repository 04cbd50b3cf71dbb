"""What a sweep has recorded, in its folder."""
