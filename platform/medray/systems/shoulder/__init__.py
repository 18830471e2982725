"""Shoulders: find the tear of the rotator cuff, grade its muscle, size the tear."""
