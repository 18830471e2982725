"""Three systems of one shoulder clinic: find the tear, grade the muscle, size the tear."""
